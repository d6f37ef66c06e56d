"""python -m tests.faults: as many seeds of as many faults as fit into the time given, and a table of what broke."""

import os
import sys

import django

from tests.support.servers import prepare_environment

if __name__ == "__main__":
    # Settings that reach no server: each stack brings its own.
    os.environ["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    prepare_environment()
    django.setup()
    from tests.faults.session import main

    sys.exit(main())

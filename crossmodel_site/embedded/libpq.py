"""What libpq reads from the environment, where an address does not say it."""

import os

PREFIX = "PG"  # PGSSLMODE, PGSERVICE, PGOPTIONS and others.


def forget_variables_of_libpq() -> None:
    """Take them out of the environment of this process, and so of those that it starts: they are meant for other
    servers, and would ask an own one for TLS, or send its clients elsewhere."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            del os.environ[name]

#!/usr/bin/env python
"""Runs CrossModel's management commands."""

import os
import select
import signal
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from accounts.audit import audited, of_command
from billing.watching import watching
from operations.management.progress import show_progress

STDOUT = 1


def reader_is_gone() -> bool:
    """Say whether nobody reads the output any more, as after `| head`. What is left of it goes nowhere then."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return True


if __name__ == "__main__":
    # There is one settings module; what another project has left in the environment is not it.
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    try:
        with audited(of_command(sys.argv)), watching(show_progress):
            execute_from_command_line(sys.argv)
    except BrokenPipeError:
        if not reader_is_gone():
            raise  # It was another pipe.
        sys.exit(128 + signal.SIGPIPE)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except OperationalError as error:
        # Whoever types a command while nothing runs should read why, not a stack trace.
        reason = " ".join(str(error).split())
        sys.exit(f"Postgres cannot be used: {reason} Does `make run` run, or does DATABASE_URL name the right server?")
    finally:
        reader_is_gone()

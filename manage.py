#!/usr/bin/env python
"""Runs CrossModel's management commands."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from accounts.audit import audited, of_command

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crossmodel_site.settings")
    try:
        with audited(of_command(sys.argv)):
            execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except OperationalError as error:
        # Whoever types a command while nothing runs should read why, not a stack trace.
        reason = " ".join(str(error).split())
        sys.exit(f"Postgres cannot be used: {reason} Does `make run` run, or does DATABASE_URL name the right server?")

"""The Celery application. Celery carries triggers, never money: a lost, doubled or late task changes only the lag."""

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_ready

os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"

app = Celery("crossmodel", task_cls="crossmodel_site.audit:AuditedTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect  # type: ignore[untyped-decorator]
def leave_logging_to_django(**_: Any) -> None:
    """Keep Celery from writing lines in a form of its own: programs that read the log know one."""


@worker_init.connect  # type: ignore[untyped-decorator]
def refuse_an_unfit_redis(**_: Any) -> None:
    """End the worker in production, where Redis would lose money."""
    # Imported here: it needs the settings, which Celery reads when the worker starts.
    from billing.admission.durability import UnfitRedisError, check_at_start

    try:
        check_at_start()
    except UnfitRedisError as error:
        raise SystemExit(str(error)) from error


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery ships no types.
def say_ready(**_: Any) -> None:
    """Tell `make run`, which waits for this line, that triggers are carried out from now on."""
    if sys.__stdout__ is not None:
        sys.__stdout__.write("Worker is ready.\n")
        sys.__stdout__.flush()

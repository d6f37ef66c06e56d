"""The Celery application. Celery carries triggers, never money: a lost, doubled or late task changes only the lag."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crossmodel_site.settings")

app = Celery("crossmodel")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

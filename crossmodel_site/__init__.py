"""Settings, URL map and processes of a CrossModel installation."""

from crossmodel_site.celery import app as celery_app

__all__ = ["celery_app"]

"""The site as a Django app: its management commands."""

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "crossmodel_site"
    verbose_name = "CrossModel"

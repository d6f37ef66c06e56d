"""The site as a Django app: its management commands, and what must hold before any model or form is imported."""

import django_stubs_ext
from django.apps import AppConfig

# Lets annotations such as ModelForm[Organization] exist while the program runs, not only for the type checker.
django_stubs_ext.monkeypatch()


class SiteConfig(AppConfig):
    name = "crossmodel_site"
    verbose_name = "CrossModel"

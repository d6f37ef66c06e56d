"""Filters of lists by a text without choices. Django would read the whole table for the values that there are."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest


def known_values(column: str, title: str, values: Callable[[], Iterable[str]]) -> type[admin.SimpleListFilter]:
    """Return a filter that offers the values which the code knows; addresses name them as Django's own filters do."""

    class KnownValuesFilter(admin.SimpleListFilter):
        parameter_name = f"{column}__exact"

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [(value, value) for value in values()]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            return queryset.filter(**{column: self.value()}) if self.value() else queryset

    KnownValuesFilter.title = title
    return KnownValuesFilter

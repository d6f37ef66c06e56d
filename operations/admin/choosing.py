"""Fields of the admin that find what is chosen while one types."""

from functools import cache
from typing import Any

from django.contrib.admin.widgets import AutocompleteMixin
from django.db.models import ForeignKey
from django.http import HttpRequest

Groups = list[Any]


class OddChoiceMixin:
    """Shows nothing as chosen where what was sent is no number: Django would answer 500 instead of naming the field."""

    def optgroups(self, name: str, value: list[str], attrs: dict[str, Any] | None = None) -> Groups:
        try:
            return list(super().optgroups(name, value, attrs))  # type: ignore[misc]  # of the widget beside it
        except (ValueError, OverflowError):
            return list(super().optgroups(name, [], attrs))  # type: ignore[misc]


class ChoosingMixin:
    """For an admin or an inline with `autocomplete_fields`."""

    def formfield_for_foreignkey(self, db_field: "ForeignKey[Any, Any]", request: HttpRequest, **options: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **options)  # type: ignore[misc]  # of the admin
        if field is not None and isinstance(field.widget, AutocompleteMixin):
            widget: Any = type(field.widget)
            field.widget.__class__ = _bearing_odd_choices(widget)
        return field


@cache
def _bearing_odd_choices(widget: type) -> type:
    return type(widget.__name__, (OddChoiceMixin, widget), {})

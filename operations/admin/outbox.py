"""What Redis does not know yet, to look at."""

from django.contrib import admin

from accounts.models import AdmissionChange
from operations.admin.base import (
    ReadOnlyAdmin,
)


@admin.register(AdmissionChange)
class AdmissionChangeAdmin(ReadOnlyAdmin):
    """What Redis does not know yet. Empty when all is well: the worker publishes every second."""

    list_display = ["id", "organization", "key", "created_at"]
    list_select_related = ["organization", "key"]
    ordering = ["id"]

"""Lets the expiry of lots lie in the past, which nobody else can: the terms of a lot are fixed."""

from datetime import timedelta

from django.db import connection
from django.utils import timezone


def age_lots(ago: timedelta) -> None:
    """Make every lot that expires have expired that long ago."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE billing_creditlot SET expires_at = %s WHERE expires_at IS NOT NULL", [timezone.now() - ago]
        )
        cursor.execute("SET LOCAL session_replication_role = origin")

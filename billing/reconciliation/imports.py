"""Keeps what providers report, by upstream and day. A later report of a day replaces the earlier one whole."""

from collections.abc import Mapping
from datetime import date

from django.db import transaction
from django.utils import timezone

from billing.models import ProviderReport, ProviderReportLine
from billing.reconciliation.provider_reports import COUNTS, ReportDay

MAX_ORIGIN_CHARS = 300
MAX_MODEL_CHARS = 200


def store_report(kind: str, upstream: str, days: Mapping[date, ReportDay], *, origin: str) -> list[date]:
    """Keep what a report says of days that are over; return those days. A day that goes on would be half a day."""
    now = timezone.now()
    stored = sorted(day for day in days if day < now.date())
    with transaction.atomic():
        ProviderReport.objects.filter(kind=kind, upstream=upstream, day__in=stored).delete()
        reports = ProviderReport.objects.bulk_create(
            [
                ProviderReport(kind=kind, upstream=upstream, day=day, origin=origin[:MAX_ORIGIN_CHARS], imported_at=now)
                for day in stored
            ]
        )
        ProviderReportLine.objects.bulk_create(line for report in reports for line in _lines(report, days[report.day]))
    return stored


def _lines(report: ProviderReport, day: ReportDay) -> list[ProviderReportLine]:
    if report.kind == ProviderReport.Kind.USAGE:
        return [
            ProviderReportLine(
                report=report, upstream_model=model[:MAX_MODEL_CHARS], **{name: counts[name] for name in COUNTS}
            )
            for model, counts in sorted(day.counts.items())
        ]
    return [
        ProviderReportLine(report=report, upstream_model=model[:MAX_MODEL_CHARS], cost_nanos=nanos)
        for model, nanos in sorted(day.cost_nanos.items())
    ]

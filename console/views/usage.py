"""Usage: sums of a period beside the one before, by interval and by group, on a page and as CSV."""

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from accounts.models import Organization
from billing.usage.sums import ATTRIBUTES, Sums, UsageFilter, sum_by_interval, sum_period
from console.entrance import console_page
from console.forms.usage import GROUPS, INTERVALS, MAX_DAYS_BY_HOUR, METRICS, PERIODS, UsageForm, days_before
from console.usage_links import UsageLinks
from console.usage_tables import (
    CSV_COLUMNS,
    axis_texts,
    buckets_of,
    csv_values,
    draw_metric,
    figures,
    label_of,
    rows_by_group,
)
from pages.csv_lines import csv_lines
from pages.templatetags.amounts import column_decimals

WRONG_FILTER = 422


@require_safe
@console_page(Permission.SEE_USAGE)
def usage(request: HttpRequest, access: Access) -> HttpResponse:
    form = UsageForm(request.GET, organization=access.organization)
    if not form.is_valid():
        return render(request, "console/usage.html", {"form": form}, status=WRONG_FILTER)
    return render(request, "console/usage.html", _context(access.organization, form))


@require_safe
@console_page(Permission.SEE_USAGE)
def usage_csv(request: HttpRequest, access: Access) -> HttpResponse:
    """The table of the page as CSV: the same rows, with exact amounts."""
    form = UsageForm(request.GET, organization=access.organization)
    if not form.is_valid():
        return render(request, "console/usage.html", {"form": form}, status=WRONG_FILTER)
    wanted, group = form.wanted, form.cleaned_data["group"] or "model"
    if group == "time":
        interval = _interval(form, wanted)
        found = sum_by_interval(access.organization, wanted, interval)
        rows: Iterable[tuple[str, Sums]] = (
            (bucket.isoformat(), found.get(bucket, Sums())) for bucket in buckets_of(wanted, interval)
        )
    else:
        rows = ((row.name, row.sums) for row in rows_by_group(access.organization, wanted, group, UsageLinks(form)))
    lines = csv_lines((group, *CSV_COLUMNS), (csv_values(name, sums) for name, sums in rows))
    response = HttpResponse("".join(lines), content_type="text/csv; charset=utf-8")
    name = f"usage-by-{group}-{access.organization.slug}-{wanted.first_day}-{wanted.last_day}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _context(organization: Organization, form: UsageForm) -> dict[str, Any]:
    wanted, links = form.wanted, UsageLinks(form)
    interval = _interval(form, wanted)
    metric, group = form.cleaned_data["metric"] or "spend", form.cleaned_data["group"] or "model"
    group = "model" if group == "time" else group
    first_before, last_before = days_before(wanted)
    earlier = UsageFilter(
        first_before, last_before, wanted.key_ids, wanted.model_id, wanted.end_user, wanted.tag, wanted.session
    )
    buckets = buckets_of(wanted, interval)
    found = sum_by_interval(organization, wanted, interval)
    found_before = sum_by_interval(organization, earlier, interval)
    before = [found_before.get(bucket, Sums()) for bucket in buckets_of(earlier, interval)]
    chart = draw_metric(metric, buckets, found, before, interval, links)
    now, then = sum_period(organization, wanted), sum(before, Sums())
    return {
        "form": form,
        "wanted": wanted,
        "earlier": earlier,
        "links": links,
        "chips": links.chips(),
        "periods": [
            {"label": label, "key": key, "query": links.period(name), "is_chosen": name == form.period_name}
            for name, (label, key) in PERIODS.items()
        ],
        "period_label": PERIODS[form.period_name][0] if form.period_name else "",
        "intervals": _intervals(wanted, links, interval),
        "interval": INTERVALS[interval].lower(),
        "figures": figures(now, then, links, metric),
        "metric": metric,
        "has_parts": metric == "tokens",
        "metric_label": METRICS[metric],
        "now": now,
        "chart": chart,
        **axis_texts(metric, chart),
        "times": [(label_of(bucket, interval), found[bucket]) for bucket in buckets if bucket in found],
        "groups": [
            {"label": label, "query": links.query(group=name), "is_chosen": name == group}
            for name, label in GROUPS.items()
        ],
        "group_label": GROUPS[group],
        "group": group,
        "rows": rows_by_group(organization, wanted, group, links),
        "decimals": column_decimals([now.cost_nanos]),
        "kept": [(name, form.data[name]) for name in ("group", "metric") if form.data.get(name)],
        "csv_query": links.query(group=group),
        "csv_times_query": links.query(group="time"),
        "requests_query": links.requests(),
        "is_bounded": group in ATTRIBUTES or wanted.names_attributes,
    }


def _interval(form: UsageForm, wanted: UsageFilter) -> Any:
    """Return the interval that is asked for; hours are not kept by end user, tag and session."""
    interval = form.cleaned_data["interval"]
    return "day" if interval == "hour" and wanted.names_attributes else interval


def _intervals(wanted: UsageFilter, links: UsageLinks, chosen: str) -> list[dict[str, Any]]:
    """Return the intervals that this many days can be shown by."""
    possible = {
        "hour": wanted.days <= MAX_DAYS_BY_HOUR and not wanted.names_attributes,
        "day": 1 < wanted.days <= 92,
        "month": wanted.days > 31,
    }
    return [
        {"label": label, "query": links.query(interval=name), "is_chosen": name == chosen}
        for name, label in INTERVALS.items()
        if possible[name] or name == chosen
    ]

"""Our records against what a provider reports of a day: tokens by model, and what it charges, in cents.

A request that runs over midnight may be in either day of the provider. So we compare with a range: what lies within the
day for certain, and what may. Only what lies outside the range is a difference.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from billing.bulk_rows import fetch_all
from billing.models import PriceComponent, PriceVersion, ProviderReport, ProviderReportLine, Route
from billing.money import NANOS_PER_USD, PICOS_PER_NANO, say_usd
from billing.reconciliation.breaks import Difference
from billing.reconciliation.provider_reports import COUNTS
from billing.request_id import first_id_at
from billing.usage.report import start_of_day

# Less than this is rounding: providers round by the bucket, we by the request.
LEAST_DIFFERENCE_NANOS = NANOS_PER_USD // 100
# How long before midnight a request may have been admitted and still run then.
LONGEST_REQUEST = timedelta(days=1)
DATED = re.compile(r"-\d{8}$")  # Providers name the snapshot, whichever name they were called by.

Counts = dict[str, int]


@dataclass(slots=True)
class Ours:
    """Counts of one model: those of the day for certain, those which may be, and how many requests were estimated."""

    least: Counts = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    most: Counts = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    estimated: int = 0


def find_report(kind: str, upstream: str, day: date) -> ProviderReport | None:
    return ProviderReport.objects.filter(kind=kind, upstream=upstream, day=day).first()


def compare_usage(report: ProviderReport) -> tuple[int, list[Difference]]:
    """Return how many models were compared, and a difference for each that is a cent or more off."""
    upstream, day = report.upstream, report.day
    names = _ModelNames(upstream)
    theirs: dict[str, Counts] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for line in ProviderReportLine.objects.filter(report=report):
        counts = theirs[names.ours(line.upstream_model)]
        for name in COUNTS:
            counts[name] += getattr(line, name)
    ours = _our_usage(upstream, day)
    models = sorted(theirs.keys() | ours.keys())
    found = (_usage_difference(upstream, day, model, ours.get(model, Ours()), theirs[model]) for model in models)
    return len(models), [difference for difference in found if difference is not None]


def compare_cost(report: ProviderReport) -> tuple[int, list[Difference]]:
    """Return how many figures were compared (one), and the difference where it is a cent or more."""
    upstream, day = report.upstream, report.day
    charged = sum(ProviderReportLine.objects.filter(report=report).values_list("cost_nanos", flat=True))
    least, most = _our_cost(upstream, day)
    off = _outside(charged, least, most)
    if abs(off) < LEAST_DIFFERENCE_NANOS:
        return 1, []
    detail = (
        f"{upstream} charges {say_usd(charged)} for {day}; our records say {say_usd(least)}"
        + (f" to {say_usd(most)}, by which day a request over midnight counts for" if most != least else "")
        + "."
    )
    return 1, [Difference(f"{upstream}:{day}", detail, off)]


def _usage_difference(upstream: str, day: date, model: str, ours: Ours, theirs: Counts) -> Difference | None:
    off = {name: _outside(theirs[name], ours.least[name], ours.most[name]) for name in COUNTS}
    if not any(off.values()):
        return None
    prices = _prices(upstream, model, day)
    nanos = sum(count * prices.get(name, 0) for name, count in off.items()) // PICOS_PER_NANO
    # Too much of one and too little of another may come to nothing together, and are two differences all the same.
    weight = sum(abs(count) * prices.get(name, 0) for name, count in off.items()) // PICOS_PER_NANO
    if prices and weight < LEAST_DIFFERENCE_NANOS:
        return None
    parts = [
        f"{name.replace('_', ' ')} {theirs[name]:,} there, {_range(ours, name)} here"
        for name, count in off.items()
        if count
    ]
    detail = f"{model or 'No model'} at {upstream} on {day}: {'; '.join(parts)}."
    if ours.estimated:
        detail += f" {ours.estimated} of our requests were estimated."
    if not prices:
        detail += " We know no price of it there."
    return Difference(f"{upstream}:{day}:{model}", detail, nanos)


def _range(ours: Ours, name: str) -> str:
    least, most = ours.least[name], ours.most[name]
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _outside(theirs: int, least: int, most: int) -> int:
    """Return how far ours lies from theirs: 0 within the range, above 0 where we have more."""
    if theirs < least:
        return least - theirs
    return min(0, most - theirs)


def _our_usage(upstream: str, day: date) -> dict[str, Ours]:
    """Return the counts of each model that this upstream served, as corrected."""
    counted = ", ".join(f"coalesce(correction.{name}, record.{name}) AS {name}" for name in COUNTS)
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS)
    rows = fetch_all(
        f"""SELECT model_id, is_certain, count(*) FILTER (WHERE source <> 'provider'), {sums}
            FROM (SELECT record.model_id, coalesce(correction.usage_source, record.usage_source) AS source,
                    record.admitted_at >= %(begins)s
                        AND record.admitted_at + record.total_ms * interval '1 ms' <= %(ends)s AS is_certain, {counted}
                FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
                WHERE record.request_id >= %(first)s AND record.request_id < %(last)s AND record.upstream = %(upstream)s
                    AND record.admitted_at < %(ends)s
                    AND record.admitted_at + record.total_ms * interval '1 ms' >= %(begins)s) usage
            GROUP BY 1, 2""",  # noqa: S608  Constants.
        _window(day, upstream),
    )
    found: dict[str, Ours] = defaultdict(Ours)
    for model_id, is_certain, estimated, *counts in rows:
        ours = found[model_id]
        ours.estimated += int(estimated)
        for name, count in zip(COUNTS, counts, strict=True):
            ours.most[name] += int(count)
            ours.least[name] += int(count) if is_certain else 0
    return found


def _our_cost(upstream: str, day: date) -> tuple[int, int]:
    """Return what this upstream charged us by our records, over all attempts: for certain, and with what may be."""
    rows = fetch_all(
        """
        SELECT is_certain, coalesce(sum(attempt.upstream_cost_nanos), 0)
        FROM (
            SELECT coalesce(correction.attempts, record.attempts) AS attempts, record.admitted_at, record.total_ms
            FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
            WHERE request_id >= %(first)s AND request_id < %(last)s
            UNION ALL
            SELECT attempts, admitted_at, total_ms FROM billing_failedrequest
            WHERE request_id >= %(first)s AND request_id < %(last)s
        ) request
        CROSS JOIN LATERAL jsonb_to_recordset(request.attempts) AS attempt(upstream text, upstream_cost_nanos bigint)
        CROSS JOIN LATERAL (SELECT admitted_at >= %(begins)s
            AND admitted_at + total_ms * interval '1 ms' <= %(ends)s AS is_certain) certainty
        WHERE attempt.upstream = %(upstream)s AND admitted_at < %(ends)s
            AND admitted_at + total_ms * interval '1 ms' >= %(begins)s
        GROUP BY 1
        """,
        _window(day, upstream),
    )
    nanos = {bool(is_certain): int(sum_nanos) for is_certain, sum_nanos in rows}
    return nanos.get(True, 0), nanos.get(True, 0) + nanos.get(False, 0)


def _prices(upstream: str, model: str, day: date) -> Mapping[str, int]:
    """Return what the upstream charges us for one unit of each count, in pico-dollars, at the end of the day."""
    version = (
        PriceVersion.objects.filter(
            language_model__model_id=model,
            upstream__name=upstream,
            effective_from__lt=start_of_day(day + timedelta(days=1)),
        )
        .exclude(approved_at=None)
        .order_by("-effective_from", "-id")
        .first()
    )
    if version is None:
        return {}
    components = PriceComponent.objects.filter(price_version=version, prompt_tokens_from=0)
    picos = dict(components.values_list("component", "picos_per_unit"))
    return {
        name: picos[name.removesuffix("_tokens")]
        for name in COUNTS
        if name.removesuffix("_tokens") in picos and name != "web_searches"
    } | ({"web_searches": picos["web_search"]} if "web_search" in picos else {})


def _window(day: date, upstream: str) -> dict[str, Any]:
    begins = start_of_day(day)
    ends = begins + timedelta(days=1)
    first, last = first_id_at(begins - LONGEST_REQUEST * 2), first_id_at(ends + LONGEST_REQUEST)
    return {"begins": begins, "ends": ends, "first": first, "last": last, "upstream": upstream}


class _ModelNames:
    """From an upstream's names of models to ours; a name that no route has stays as it is."""

    def __init__(self, upstream: str) -> None:
        routes: Iterable[tuple[str, str]] = Route.objects.filter(upstream__name=upstream).values_list(
            "upstream_model", "language_model__model_id"
        )
        self._exact = dict(routes)
        self._undated = {DATED.sub("", name): model_id for name, model_id in self._exact.items()}

    def ours(self, name: str) -> str:
        return self._exact.get(name) or self._undated.get(DATED.sub("", name)) or name

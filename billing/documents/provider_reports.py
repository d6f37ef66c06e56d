"""Usage and cost in the shape of Anthropic's Usage and Cost Admin API, so that tools for it work with our address.

Source: https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages and .../admin/cost_report.

Requests count in the bucket of their admission, with the true counts where an orphan was corrected. Cost is what
requests were charged; refunds and re-ratings are on invoices and credit notes. There are no workspaces here, no batches
and no regions: those fields are null, `standard` and `not_available`.
"""

import base64
import binascii
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.documents.components import price_components, read_price_tables
from billing.pricing.cost import COMPONENTS, INPUT, OUTPUT, WEB_SEARCH
from billing.request_id import first_id_at
from billing.usage_event import USAGE_COUNTS

WIDTHS = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}  # How many buckets by default, and at most.
USAGE_GROUPS = ("api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo")
COST_GROUPS = ("workspace_id", "description")
LONG_CONTEXT_TOKENS = 200_000
SHORT_CONTEXT, LONG_CONTEXT = "0-200k", "200k-1M"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER_BY = timedelta(days=1)  # Request ids are made by gateways' clocks, admission is stamped by Redis'.
MAX_FILTERS = 100
MAX_RESULTS = 20_000  # In one page: buckets x groups.
NANOS_PER_CENT = 10_000_000
TOKEN_TYPES = {
    INPUT: "uncached_input_tokens",
    OUTPUT: "output_tokens",
    "cache_write_5m": "cache_creation.ephemeral_5m_input_tokens",
    "cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
    "cache_read": "cache_read_input_tokens",
}


class ReportError(ValueError):
    """The report cannot be made so; the text says why, for the caller."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. Buckets are [starting_at, ending_at), snapped to whole minutes, hours or days of UTC."""

    starting_at: datetime
    ending_at: datetime | None = None
    width: str = "1d"
    limit: int | None = None
    page: str = ""
    group_by: Sequence[str] = ()
    key_ids: Sequence[int] | None = None
    models: Sequence[str] = ()
    context_windows: Sequence[str] = ()


@dataclass(slots=True)
class Bucket:
    starting_at: datetime
    ending_at: datetime
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    buckets: Sequence[Bucket]
    next_page: str | None


def report_usage(organization: Organization, wanted: Wanted) -> Page:
    """Return the tokens of an organization by bucket and group. Raises ReportError."""
    _check(wanted, USAGE_GROUPS)
    buckets, next_page = _buckets(wanted)
    by_bucket = _by_start(buckets)
    groups = {
        "api_key_id": "record.key_id" if "api_key_id" in wanted.group_by else "NULL::bigint",
        "model": "record.model_id" if "model" in wanted.group_by else "NULL::text",
        "context_window": _CONTEXT if "context_window" in wanted.group_by else "NULL::text",
    }
    rows = _read(organization, wanted, buckets, ", ".join(groups.values()), grouped=3)
    for start, key_id, model, context, _, *counts in rows:
        used = dict(zip(COMPONENTS, counts, strict=True))
        by_bucket[start].results.append(
            {
                "uncached_input_tokens": used[INPUT],
                "cache_creation": {
                    "ephemeral_1h_input_tokens": used["cache_write_1h"],
                    "ephemeral_5m_input_tokens": used["cache_write_5m"],
                },
                "cache_read_input_tokens": used["cache_read"],
                "output_tokens": used[OUTPUT],
                "server_tool_use": {"web_search_requests": used[WEB_SEARCH]},
                "api_key_id": name_key(key_id) if key_id is not None else None,
                "workspace_id": None,
                "model": model,
                "service_tier": "standard" if "service_tier" in wanted.group_by else None,
                "context_window": context,
                "inference_geo": "not_available" if "inference_geo" in wanted.group_by else None,
            }
        )
    return Page(buckets, next_page)


def report_cost(organization: Organization, wanted: Wanted) -> Page:
    """Return what requests cost by day, and by model and component when grouped by description. Raises ReportError."""
    _check(wanted, COST_GROUPS)
    if wanted.width != "1d":
        raise ReportError("bucket_width: the cost report has buckets of 1d.")
    buckets, next_page = _buckets(wanted)
    by_bucket = _by_start(buckets)
    if "description" not in wanted.group_by:
        for start, cost, *_ in _read(organization, wanted, buckets, "", grouped=0):
            by_bucket[start].results.append(_cost_result(cost))
        return Page(buckets, next_page)
    columns = f"record.model_id, record.price_version_id, record.factor_ppm, {_TIER}, {_CONTEXT}"
    rows = _read(organization, wanted, buckets, columns, grouped=5)
    tables = read_price_tables({row[2] for row in rows})
    sums: dict[tuple[datetime, str, str, str], int] = defaultdict(int)
    for start, model, version_id, factor_ppm, tier, context, cost, *counts in rows:
        priced = price_components(tables[version_id], tier, factor_ppm, counts) if version_id in tables else []
        for component, _, _, nanos in priced:
            sums[start, model, context, component] += nanos
            cost -= nanos
        sums[start, model, context, ""] += cost
    for (start, model, context, component), nanos in sorted(sums.items()):
        if nanos:
            by_bucket[start].results.append(_cost_result(nanos, model=model, context=context, component=component))
    return Page(buckets, next_page)


def name_key(key_id: int) -> str:
    return f"apikey_{key_id}"


def parse_key_name(text: str) -> int:
    """Return the id of a key as reports name it. Raises ReportError."""
    digits = text.removeprefix("apikey_")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise ReportError(f"api_key_ids: {text!r} is no key.")
    return int(digits)


def cents_of(nanos: int) -> str:
    """Return nano-dollars as cents in a decimal string, exact: "123.45" is 1.2345 US dollars."""
    sign, (whole, fraction) = "-" if nanos < 0 else "", divmod(abs(nanos), NANOS_PER_CENT)
    digits = f"{fraction:07d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def _cost_result(nanos: int, *, model: str = "", context: str = "", component: str = "") -> dict[str, Any]:
    token_type = TOKEN_TYPES.get(component)
    is_search = component == WEB_SEARCH
    text = None
    if model:
        what = component.replace("_", " ") if component else "minimum charges and rounding"
        text = f"{model} usage, {what}"
    return {
        "currency": "USD",
        "amount": cents_of(nanos),
        "workspace_id": None,
        "description": text,
        "cost_type": None if not model else "web_search" if is_search else "tokens",
        "context_window": context if token_type else None,
        "model": model if model and not is_search else None,
        "service_tier": "standard" if model and not is_search else None,
        "token_type": token_type,
        "inference_geo": None,
    }


_TRUE = {name: f"coalesce(correction.{name}, record.{name})" for name in USAGE_COUNTS}
_PROMPT = " + ".join(_TRUE[f"{name}_tokens"] for name in ("input", "cache_write_5m", "cache_write_1h", "cache_read"))
_CONTEXT = f"CASE WHEN {_PROMPT} > {LONG_CONTEXT_TOKENS} THEN '{LONG_CONTEXT}' ELSE '{SHORT_CONTEXT}' END"
_TIER = f"coalesce(tiers.starts[width_bucket({_PROMPT}, tiers.starts)], 0)"


def _read(
    organization: Organization, wanted: Wanted, buckets: Sequence[Bucket], columns: str, *, grouped: int
) -> list[Any]:
    """Return rows of bucket, columns, cost in nano-dollars and counts. Raises ReportError when there are too many."""
    if not buckets:
        return []
    begins, ends = buckets[0].starting_at, buckets[-1].ending_at
    sums = ", ".join(f"sum({sql})::bigint" for sql in _TRUE.values())
    conditions = ["record.key_id = ANY(%(keys)s)"] if wanted.key_ids is not None else []
    if wanted.models:
        conditions.append("record.model_id = ANY(%(models)s)")
    if wanted.context_windows:
        conditions.append(f"{_CONTEXT} = ANY(%(contexts)s)")
    rows = fetch_all(
        f"""SELECT date_bin(%(width)s, record.admitted_at, %(epoch)s), {columns}{"," if columns else ""}
                sum(coalesce(correction.cost_after_nanos, record.cost_nanos))::bigint, {sums}
            FROM billing_usagerecord record
            LEFT JOIN billing_usagecorrection correction USING (request_id)
            LEFT JOIN (SELECT price_version_id,
                    array_agg(DISTINCT prompt_tokens_from::bigint ORDER BY prompt_tokens_from::bigint) AS starts
                FROM billing_pricecomponent GROUP BY price_version_id) tiers
                ON tiers.price_version_id = record.price_version_id
            WHERE record.organization_id = %(organization_id)s
              AND record.request_id >= %(first)s AND record.request_id < %(before)s
              AND record.admitted_at >= %(begins)s AND record.admitted_at < %(ends)s
              {"".join(f"AND {condition} " for condition in conditions)}
            GROUP BY {", ".join(str(place) for place in range(1, grouped + 2))}
            ORDER BY {", ".join(str(place) for place in range(1, grouped + 2))} LIMIT {MAX_RESULTS + 1}""",  # noqa: S608
        {
            "organization_id": organization.pk,
            "width": WIDTHS[wanted.width],
            "epoch": EPOCH,
            "first": first_id_at(begins - CLOCKS_DIFFER_BY),
            "before": first_id_at(ends + CLOCKS_DIFFER_BY),
            "begins": begins,
            "ends": ends,
            "keys": list(wanted.key_ids or ()),
            "models": list(wanted.models),
            "contexts": list(wanted.context_windows),
        },
    )
    if len(rows) > MAX_RESULTS:
        raise ReportError(f"limit: more than {MAX_RESULTS:,} results; ask for fewer buckets or groups.")
    return rows


def _check(wanted: Wanted, groups: Sequence[str]) -> None:
    unknown = [name for name in wanted.group_by if name not in groups]
    if unknown:
        raise ReportError(f"group_by[]: {unknown[0]!r} is none of {', '.join(groups)}.")
    if wanted.width not in WIDTHS:
        raise ReportError(f"bucket_width: {wanted.width!r} is none of {', '.join(WIDTHS)}.")
    most = LIMITS[wanted.width][1]
    if wanted.limit is not None and not 1 <= wanted.limit <= most:
        raise ReportError(f"limit: 1 to {most} buckets of {wanted.width}.")
    if max(len(wanted.models), len(wanted.key_ids or ()), len(wanted.context_windows)) > MAX_FILTERS:
        raise ReportError(f"At most {MAX_FILTERS} values of a filter.")
    if wanted.ending_at is not None and wanted.ending_at <= wanted.starting_at:
        raise ReportError("ending_at: must lie after starting_at.")


def _buckets(wanted: Wanted) -> tuple[list[Bucket], str | None]:
    """Return the buckets of a page, also those without usage, and the token of the next page."""
    width = WIDTHS[wanted.width]
    start = _snap(_read_page(wanted.page) if wanted.page else wanted.starting_at, width)
    # Without an end, the bucket that has begun is the last one.
    last = wanted.ending_at if wanted.ending_at is not None else _snap(timezone.now(), width) + width
    limit = wanted.limit or LIMITS[wanted.width][0]
    buckets: list[Bucket] = []
    while start + width <= last:
        if len(buckets) == limit:
            return buckets, "page_" + base64.urlsafe_b64encode(_format(start).encode()).decode()
        buckets.append(Bucket(start, start + width))
        start += width
    return buckets, None


def _snap(moment: datetime, width: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // width * width


def _read_page(token: str) -> datetime:
    try:
        text = base64.urlsafe_b64decode(token.removeprefix("page_").encode()).decode()
        moment = datetime.fromisoformat(text)
    except (ValueError, binascii.Error):
        raise ReportError("page: is no token of a next page.") from None
    if moment.tzinfo is None or not 2000 <= moment.year <= 2200:
        raise ReportError("page: is no token of a next page.")
    return moment


def _format(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _by_start(buckets: Sequence[Bucket]) -> dict[datetime, Bucket]:
    return {bucket.starting_at: bucket for bucket in buckets}

"""Usage: requests with filters, page by page, the export of them, and the receipt of each."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission, console_page
from accounts.models import ApiKey
from billing.forms import UsageFilterForm, default_filter
from billing.models import UsageRecord
from billing.money import format_usd
from billing.receipts import Receipt, find_receipt
from billing.request_id import parse_request_id
from billing.templatetags.amounts import message_id
from billing.usage_report import (
    MAX_EXPORT_ROWS,
    ListedRequest,
    UsageFilter,
    export_requests,
    list_requests,
    sum_usage,
    used_model_ids,
)

MAX_KEY_CHOICES = 1000
EXPORT_COLUMNS = (
    "request_id",
    "admitted_at",
    "outcome",
    "error_code",
    "key_id",
    "key_name",
    "model",
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "images",
    "web_searches",
    "cost_usd",
    "price_version_id",
    "factor_ppm",
    "usage_source",
    "total_ms",
    "settled_at",
)
# A spreadsheet would run text that begins with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@require_safe
@console_page(Permission.SEE_USAGE)
def usage(request: HttpRequest, access: Access) -> HttpResponse:
    form, wanted, keys = _read_filter(request, access)
    page = list_requests(access.organization, wanted, before=_read_before(request))
    context: dict[str, Any] = {
        "form": form,
        "wanted": wanted,
        "page": page,
        "key_names": {key.pk: key.name for key in keys},
        "totals": sum_usage(
            access.organization,
            since=wanted.since,
            until=wanted.until,
            key_id=wanted.key_id,
            model_id=wanted.model_id,
        ),
        "query": _query_without(request, "before"),
        "is_first_page": "before" not in request.GET,
        "max_export_rows": MAX_EXPORT_ROWS,
    }
    return render(request, "billing/usage.html", context, status=200 if form.is_valid() else 422)


@require_safe
@console_page(Permission.SEE_USAGE)
def usage_export(request: HttpRequest, access: Access) -> StreamingHttpResponse:
    """The requests of the filter as CSV, newest first, at most MAX_EXPORT_ROWS. Amounts are exact."""
    _, wanted, keys = _read_filter(request, access)
    rows = _csv_rows(export_requests(access.organization, wanted), {key.pk: key.name for key in keys})
    response = StreamingHttpResponse(rows, content_type="text/csv; charset=utf-8")
    name = f"usage-{access.organization.slug}-{wanted.first_day}-{wanted.last_day}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_safe
@console_page(Permission.SEE_USAGE)
def receipt(request: HttpRequest, access: Access, request_id: str) -> HttpResponse:
    parsed = parse_request_id(request_id)
    found = find_receipt(access.organization, parsed) if parsed else None
    if found is None:
        raise Http404
    template = "billing/receipt.html" if isinstance(found, Receipt) else "billing/receipt_failed.html"
    return render(request, template, {"receipt": found, "record": found.record})


def _read_filter(request: HttpRequest, access: Access) -> tuple[UsageFilterForm, UsageFilter, list[ApiKey]]:
    """Return the form, what it asks for (the default where it is wrong), and the organization's keys."""
    default = default_filter()
    keys = list(access.organization.keys.all()[:MAX_KEY_CHOICES])
    values = request.GET.copy()
    values.setdefault("first_day", str(default.first_day))
    values.setdefault("last_day", str(default.last_day))
    form = UsageFilterForm(values, keys=keys, model_ids=used_model_ids(access.organization, today=default.last_day))
    return form, form.usage_filter if form.is_valid() else default, keys


def _read_before(request: HttpRequest) -> UUID | None:
    text = request.GET.get("before")
    if not text:
        return None
    before = parse_request_id(text)
    if before is None:
        raise Http404
    return before


def _query_without(request: HttpRequest, name: str) -> str:
    query = request.GET.copy()
    query.pop(name, None)
    return query.urlencode()


class _Line:
    """A file for csv.writer that hands back each line instead of keeping it."""

    def write(self, line: str) -> str:
        return line


def _csv_rows(requests: Iterable[ListedRequest], key_names: dict[int, str]) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow(EXPORT_COLUMNS)
    for listed in requests:
        yield writer.writerow([_defuse(value) for value in _csv_values(listed, key_names.get(listed.key_id, ""))])


def _csv_values(listed: ListedRequest, key_name: str) -> list[Any]:
    begin = [message_id(listed.request_id), listed.admitted_at.isoformat()]
    if not isinstance(listed, UsageRecord):
        end: list[Any] = [listed.total_ms, listed.settled_at.isoformat()]
        who = ["failed", listed.error_code, listed.key_id, key_name, listed.model_id]
        return [*begin, *who, *[0] * 7, "0.00", "", "", "", *end]
    return [
        *begin,
        *["billed", "", listed.key_id, key_name, listed.model_id],
        *[listed.input_tokens, listed.output_tokens, listed.cache_write_5m_tokens, listed.cache_write_1h_tokens],
        *[listed.cache_read_tokens, listed.images, listed.web_searches, format_usd(listed.cost_nanos)],
        *[listed.price_version_id, listed.factor_ppm, listed.usage_source, listed.total_ms],
        listed.settled_at.isoformat(),
    ]


def _defuse(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value

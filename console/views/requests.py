"""Requests one by one: a list that goes both ways and follows what happens, its CSV, search, and receipts."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from billing.models import FailedRequest, UsageRecord
from billing.money import format_usd
from billing.pricing.cost import Usage
from billing.request_id import parse_request_id
from billing.usage.receipts import Receipt, find_receipt
from billing.usage.refusals import find_refusal
from billing.usage.requests import (
    MAX_EXPORT_ROWS,
    ListedRequest,
    RequestPage,
    export_requests,
    find_details,
    list_requests,
)
from billing.usage.sums import ATTRIBUTES
from billing.usage_event import USAGE_COUNTS
from console.entrance import console_page
from console.following import follow_until, may_ask, stop_following
from console.forms.usage import UsageForm
from console.next_steps import next_step
from console.usage_links import UsageLinks
from pages.csv_lines import csv_chunks
from pages.streams import stream_chunks
from pages.templatetags.amounts import message_id

WRONG_FILTER = 422
LIVE_SECONDS = 1_800  # A page that nobody looks at any more stops asking.
NOTHING_NEW = 204
DIGEST_CHARS = 16
OUTCOME_LABELS = {"": "All", "billed": "Billed", "failed": "Failed", "refused": "Refused"}
EXPORT_COLUMNS = (
    "request_id",
    "admitted_at",
    "outcome",
    "error_code",
    "key_id",
    "key_name",
    "model",
    *USAGE_COUNTS,
    "cost_usd",
    "price_version_id",
    "factor_ppm",
    "usage_source",
    "total_ms",
    "settled_at",
    *ATTRIBUTES,
)


@require_safe
@console_page(Permission.SEE_USAGE)
def requests(request: HttpRequest, access: Access) -> HttpResponse:
    searched = request.GET.get("q", "").strip()
    if searched and (wanted_id := parse_request_id(searched)) and _is_known(access, wanted_id):
        return redirect("receipt", slug=access.organization.slug, request_id=wanted_id.hex)
    form = UsageForm(request.GET, organization=access.organization)
    if searched or not form.is_valid():
        context = {"form": form, "searched": searched, "looks_like_id": bool(parse_request_id(searched))}
        return render(request, "console/requests.html", context, status=200 if searched else WRONG_FILTER)
    before, after = _read_id(request, "before"), _read_id(request, "after")
    page = list_requests(access.organization, form.wanted, before=before, after=after)
    links = UsageLinks(form)
    is_first = before is None and (after is None or page.newer_than is None)
    context = {
        **_rows(access, form, page),
        "form": form,
        "page": page,
        "links": links,
        "chips": links.chips(),
        "wanted": form.wanted,
        "query": links.requests(),
        "outcomes": [
            {"label": label, "query": links.requests(outcome=name), "is_chosen": name == form.wanted.outcome}
            for name, label in OUTCOME_LABELS.items()
        ],
        "usage_query": links.query(outcome=""),
        "newest_query": "" if is_first else links.requests(),
        "older_query": _beside(links, "before", page.older_than),
        "newer_query": _beside(links, "after", None if is_first else page.newer_than),
        "live_query": _live_query(links, page, until=follow_until(LIVE_SECONDS)) if is_first else "",
        "max_export_rows": MAX_EXPORT_ROWS,
    }
    return render(request, "console/requests.html", context)


@require_safe
@console_page(Permission.SEE_USAGE)
def requests_live(request: HttpRequest, access: Access) -> HttpResponse:
    """The rows of the first page, where they are not those that the page shows already."""
    form = UsageForm(request.GET, organization=access.organization)
    until = request.GET.get("until", "")
    if not form.is_valid():
        raise Http404
    links = UsageLinks(form)
    if not may_ask(until):
        return stop_following()
    page = list_requests(access.organization, form.wanted)
    if request.GET.get("seen") == _digest(page):
        return HttpResponse(status=NOTHING_NEW)
    context = {**_rows(access, form, page), "live_query": _live_query(links, page, until=int(until))}
    return render(request, "console/_requests_rows.html", context)


@require_safe
@console_page(Permission.SEE_USAGE)
def usage_export(request: HttpRequest, access: Access) -> HttpResponse | StreamingHttpResponse:
    """The requests of the filter as CSV, newest first, at most MAX_EXPORT_ROWS. Amounts are exact."""
    form = UsageForm(request.GET, organization=access.organization)
    if not form.is_valid():
        return render(request, "console/requests.html", {"form": form}, status=WRONG_FILTER)
    wanted = form.wanted
    rows = _csv_rows(export_requests(access.organization, wanted), {key.pk: key.name for key in form.keys})
    response = StreamingHttpResponse(stream_chunks(rows), content_type="text/csv; charset=utf-8")
    name = f"usage-{access.organization.slug}-{wanted.first_day}-{wanted.last_day}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_safe
@console_page(Permission.SEE_USAGE)
def receipt(request: HttpRequest, access: Access, request_id: str) -> HttpResponse:
    """One request, on a page of its own or, asked for by a list, in the panel beside it."""
    parsed = parse_request_id(request_id)
    found = find_receipt(access.organization, parsed) if parsed else None
    frame = {"frame": "console/_peek.html" if request.headers.get("HX-Request") else "console/_layout.html"}
    if found is None and parsed and (refusal := find_refusal(access.organization.pk, parsed)):
        key = access.organization.keys.filter(pk=refusal.key_id).first()
        context = {"record": refusal, "key": key, "next": next_step(refusal, key, access), **frame}
        return render(request, "console/receipt_refused.html", context)
    if found is None:
        raise Http404
    template = "console/receipt.html" if isinstance(found, Receipt) else "console/receipt_failed.html"
    return render(request, template, {"receipt": found, "record": found.record, **frame})


def _is_known(access: Access, request_id: UUID) -> bool:
    organization = access.organization
    return bool(find_receipt(organization, request_id) or find_refusal(organization.pk, request_id))


def _rows(access: Access, form: UsageForm, page: RequestPage) -> dict[str, Any]:
    return {
        "requests": page.requests,
        "peeks": True,
        "key_names": {key.pk: key.name for key in form.keys},
        "details": find_details(page.requests),
        "slug": access.organization.slug,
    }


def _live_query(links: UsageLinks, page: RequestPage, *, until: int) -> str:
    return f"{links.requests()}&{urlencode({'seen': _digest(page), 'until': until})}".replace("?&", "?", 1)


def _digest(page: RequestPage) -> str:
    """Return what tells one list of requests from another."""
    ids = b"".join(row.request_id.bytes + bytes([getattr(row, "repeats", 0) % 251]) for row in page.requests)
    return hashlib.sha256(ids).hexdigest()[:DIGEST_CHARS]


def _beside(links: UsageLinks, word: str, request_id: UUID | None) -> str:
    return f"{links.requests()}&{word}={request_id.hex}".replace("?&", "?", 1) if request_id else ""


def _read_id(request: HttpRequest, word: str) -> UUID | None:
    text = request.GET.get(word)
    if not text:
        return None
    parsed = parse_request_id(text)
    if parsed is None:
        raise Http404
    return parsed


def _csv_rows(found: Iterable[tuple[ListedRequest, object]], key_names: dict[int, str]) -> Iterator[bytes]:
    rows = (
        [*_csv_values(listed, key_names.get(listed.key_id, "")), *(getattr(detail, name, "") for name in ATTRIBUTES)]
        for listed, detail in found
    )
    return csv_chunks(EXPORT_COLUMNS, rows)


def _csv_values(listed: ListedRequest, key_name: str) -> list[Any]:
    begin = [message_id(listed.request_id), listed.admitted_at.isoformat()]
    if not isinstance(listed, UsageRecord):
        end: list[Any] = [listed.total_ms, listed.settled_at.isoformat()]
        outcome = "failed" if isinstance(listed, FailedRequest) else "refused"
        who = [outcome, listed.error_code, listed.key_id, key_name, listed.model_id]
        return [*begin, *who, *Usage().counts, "0.00", "", "", "", *end]
    return [
        *begin,
        *["billed", "", listed.key_id, key_name, listed.model_id],
        *[*Usage.of(listed).counts, format_usd(listed.cost_nanos)],
        *[listed.price_version_id, listed.factor_ppm, listed.usage_source, listed.total_ms],
        listed.settled_at.isoformat(),
    ]

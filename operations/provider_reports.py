"""Fetches reports of usage and cost from a provider's Admin API, page by page. The shape is that of Anthropic's.

Which upstreams have one says CROSSMODEL_PROVIDER_REPORTS; the admin key stands in the environment alone.
"""

import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings

from billing.catalog.variables import expand_variables
from billing.models import Upstream
from billing.reconciliation.imports import store_report
from billing.reconciliation.provider_reports import COST, USAGE, InvalidReportError, read_report
from operations.judged_http import Bounds, NoAnswerError, exchange

TOTAL_SECONDS = 60.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_PAGES = 100  # A page has up to 31 days.
PATHS = {USAGE: "/v1/organizations/usage_report/messages", COST: "/v1/organizations/cost_report"}
GROUPED_BY = {USAGE: "model", COST: "description"}
API_VERSION = "2023-06-01"


class ReportUnavailableError(Exception):
    """The report could not be had; the text says why."""


def fetch_reports(upstream_name: str, *, first_day: date, last_day: date) -> dict[str, list[date]]:
    """Fetch and keep the reports of these days; return by kind which days that were. Raises ReportUnavailableError."""
    upstream = Upstream.objects.filter(name=upstream_name).first()
    if upstream is None:
        raise ReportUnavailableError(f"There is no upstream {upstream_name}.")
    variable = settings.PROVIDER_REPORTS.get(upstream_name, "")
    credential = os.environ.get(variable, "").strip()
    if not credential:
        raise ReportUnavailableError(
            f"There is no admin key for {upstream_name}: CROSSMODEL_PROVIDER_REPORTS names {variable or 'none'}."
        )
    base_url = expand_variables(upstream.base_url).rstrip("/")
    stored = {}
    for kind in (USAGE, COST):
        url = f"{base_url}{PATHS[kind]}"
        try:
            days = read_report(kind, _pages(url, kind, credential, first_day=first_day, last_day=last_day))
        except InvalidReportError as error:
            raise ReportUnavailableError(f"{url}: {error}") from error
        stored[kind] = store_report(kind, upstream_name, days, origin=url)
    return stored


def _pages(url: str, kind: str, credential: str, *, first_day: date, last_day: date) -> Iterator[Any]:
    query = {
        "starting_at": f"{first_day}T00:00:00Z",
        "ending_at": f"{last_day + timedelta(days=1)}T00:00:00Z",
        "bucket_width": "1d",
        "group_by[]": GROUPED_BY[kind],
    }
    bounds = Bounds(tuple(settings.UPSTREAM_NETWORKS), TOTAL_SECONDS, MAX_ANSWER_BYTES)
    for _ in range(MAX_PAGES):
        page = _ask(f"{url}?{urlencode(query)}", credential, bounds)
        yield page
        if not isinstance(page, dict) or not page.get("has_more"):
            return
        query["page"] = str(page.get("next_page") or "")
    raise ReportUnavailableError(f"{url} has more than {MAX_PAGES} pages.")


def _ask(url: str, credential: str, bounds: Bounds) -> Any:
    headers = {"x-api-key": credential, "anthropic-version": API_VERSION, "accept": "application/json"}
    try:
        status, body = exchange("GET", url, headers=headers, bounds=bounds)
    except NoAnswerError as error:
        raise ReportUnavailableError(f"{url}: {error}") from error
    if status != 200:
        raise ReportUnavailableError(f"{url} answered {status}.")
    try:
        return json.loads(body)
    except ValueError:
        raise ReportUnavailableError(f"{url} answered what is no JSON, or more than we read.") from None

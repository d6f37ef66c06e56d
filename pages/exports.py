"""What is kept of somebody, as a file: a line of JSON for each row."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase

from accounts.audit_entries import record
from accounts.models import Organization
from billing.privacy.own_export import export_own
from pages.streams import stream_chunks

ROWS = "application/x-ndjson; charset=utf-8"

Response = TypeVar("Response", bound=HttpResponseBase)


def send_export(organization: Organization) -> StreamingHttpResponse:
    """Return the file of an organization, row by row as it is read. The audit knows of it."""
    record(
        "exported",
        subject_table="accounts_organization",
        subject_id=organization.pk,
        organization_id=organization.pk,
        details={"name": organization.name},
    )
    chunks: Iterator[bytes] = (json.dumps(row).encode() + b"\n" for row in export_own(organization))
    return as_file(StreamingHttpResponse(stream_chunks(chunks), content_type=ROWS), organization.slug)


def as_file(response: Response, name: str) -> Response:
    """Have browsers keep an answer as a file of today with this name."""
    response["Content-Disposition"] = f'attachment; filename="{name}-{datetime.now(UTC):%Y-%m-%d}.jsonl"'
    return response

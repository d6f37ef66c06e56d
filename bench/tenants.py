"""Organizations with credit and keys for the benchmarks, and the requests that they send. Needs Django set up."""

import json
from dataclasses import dataclass
from pathlib import Path

from accounts.keys import create_key
from accounts.organizations import create_organization
from billing.admission.outbox import publish_pending_changes
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot
from billing.money import parse_usd

MODEL = "anthropic/claude-sonnet-4.6"
QUESTION = "Which part of a request costs the most, and how would you find that out without guessing? " * 8


@dataclass(frozen=True)
class Tenant:
    organization_id: int
    key_id: int
    secret: str


def make_tenant(name: str, *, credit_usd: str) -> Tenant:
    organization = create_organization(name=name)
    grant_credit(
        organization,
        amount_nanos=parse_usd(credit_usd),
        kind=CreditLot.Kind.PAID,
        reason="for a benchmark",
        actor="bench",
        idempotency_key=f"bench:{name}",
    )
    key, secret = create_key(organization, name="bench", created_by=None)
    publish_pending_changes()
    return Tenant(organization.pk, key.pk, secret)


def request_text(secret: str, *, stream: bool = False, max_tokens: int = 1024) -> str:
    """Return one HTTP request as text: about what a small SDK call sends."""
    fields = {
        "model": MODEL,
        "max_tokens": max_tokens,
        "system": "You answer questions about performance in a few plain sentences.",
        "messages": [{"role": "user", "content": QUESTION}],
    }
    body = json.dumps(fields | ({"stream": True} if stream else {}), separators=(",", ":"))
    return (
        "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
        "user-agent: anthropic-python/2.12.0\r\nanthropic-version: 2023-06-01\r\n"
        f"content-type: application/json\r\nx-api-key: {secret}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )


def write_requests(path: Path, tenants: list[Tenant], *, stream: bool = False, max_tokens: int = 1024) -> Path:
    path.write_text(json.dumps([request_text(each.secret, stream=stream, max_tokens=max_tokens) for each in tenants]))
    return path

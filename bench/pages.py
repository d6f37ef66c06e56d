"""What the pages of the console, the API and the admin cost: `python -m bench.pages` on the database of DATABASE_URL.

Every page is opened some times in this process, by the owner of the organization with most requests, of one with few,
and by an operator. Of each the 95th percentile is printed: CPU of this process and of its connection's Postgres, which
a busy machine distorts less than time; and the median of both, which it distorts less still. bench/load_records.py
fills a database with what it takes to see them grow.
"""

import argparse
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPENINGS = 11
NANOS_PER_MS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openings", type=int, default=OPENINGS, help="of each page; the first is not counted")
    parser.add_argument("--only", default="", help="a part of the page's name")
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    import django

    django.setup()
    from django.conf import settings

    if settings.PRODUCTION:
        raise SystemExit("This signs in as people of its own: not in production.")
    settings.ALLOWED_HOSTS = ["*"]
    from billing.admission.outbox import publish_pending_changes
    from billing.models import UsageRecord

    publish_pending_changes()
    gc.collect()
    gc.freeze()  # As processes of pages do; otherwise the collector's time is that of whichever page comes next.
    records = UsageRecord.objects.count()
    columns = f"{'page':<52} {'CPU ms':>8} {'Postgres ms':>12} {'both':>8} {'median':>8} {'queries':>8}"
    print(f"{columns}   of {records:,} records")
    rows = []
    for name, client, url, headers in pages():
        if options.only in name:
            rows.append(measure(name, client, url, headers, openings=options.openings))
            row = rows[-1]
            print(
                f"{row['page']:<52} {row['cpu_ms']:>8.1f} {row['postgres_ms']:>12.1f} {row['both_ms']:>8.1f}"
                f" {row['median_ms']:>8.1f} {row['queries']:>8}  {row['status']}",
                flush=True,
            )
    for group in ("hot console", "cold console", "hot API", "cold API", "admin"):
        summarise(records, group, [row for row in rows if row["page"].startswith(group)])


def summarise(records: int, group: str, rows: list[dict[str, Any]]) -> None:
    """Print a row of the table in docs/speed.md: half of the pages cost less, nearly all, all; and which costs most."""
    if not rows:
        return
    both = sorted(row["both_ms"] for row in rows)
    postgres = max(row["postgres_ms"] for row in rows)
    most = max(rows, key=lambda row: float(row["both_ms"]))["page"].removeprefix(group).strip()
    figures = [f"{ms:.0f}" for ms in (both[len(both) // 2], both[int(len(both) * 0.95)], both[-1])]
    print(f"| {records:,} | {group} | {len(rows)} | {' | '.join(figures)} | {most} | {postgres:.0f} |", flush=True)


def measure(name: str, client: Any, url: str, headers: dict[str, str], *, openings: int) -> dict[str, Any]:
    """Open one page again and again, and return what nearly all openings cost at most."""
    from django.db import connection

    spent: list[tuple[float, float]] = []
    queries: list[str] = []

    def note(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        queries.append(sql)
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(note):
        read(client.get(url, headers=headers))
    status = 0
    for _ in range(openings):
        backend = connection.connection.info.backend_pid
        before = time.process_time(), _backend_ms(backend)
        response = client.get(url, headers=headers)
        read(response)
        spent.append(((time.process_time() - before[0]) * 1000, _backend_ms(backend) - before[1]))
        status = response.status_code
    spent.sort(key=sum)
    cpu_ms, postgres_ms = spent[int(len(spent) * 0.95)]
    return {
        "page": name,
        "cpu_ms": cpu_ms,
        "postgres_ms": postgres_ms,
        "both_ms": cpu_ms + postgres_ms,
        "median_ms": sum(spent[len(spent) // 2]),
        "queries": len(queries),
        "status": status,
    }


def read(response: Any) -> None:
    """Read what is sent as it is made."""
    from asgiref.sync import async_to_sync

    if not getattr(response, "streaming", False):
        return

    async def drain() -> None:
        async for _ in response.streaming_content:
            pass

    if response.is_async:
        async_to_sync(drain)()
    else:
        for _ in response.streaming_content:
            pass


def pages() -> Iterator[tuple[str, Any, str, dict[str, str]]]:
    """Yield name, client, address and headers of each page."""
    from django.db.models import Count

    from accounts.models import Organization
    from billing.models import LedgerTransaction

    busiest = (
        LedgerTransaction.objects.filter(kind="usage")
        .values("organization")
        .annotate(rows=Count("id"))
        .order_by("-rows")
    )
    ranked = [row["organization"] for row in busiest]
    for label, organization_id in (("hot", ranked[0]), ("cold", ranked[-1])):
        organization = Organization.objects.get(pk=organization_id)
        yield from _console(label, organization)
        yield from _api(label, organization)
    yield from _admin(ranked[0], ranked[-1])


def _console(label: str, organization: Any) -> Iterator[tuple[str, Any, str, dict[str, str]]]:
    from django.urls import NoReverseMatch, reverse

    from billing.models import LedgerTransaction, UsageRecord
    from console.urls import urlpatterns

    client = _client_of(organization)
    record = UsageRecord.objects.filter(organization_id=organization.pk).latest("request_id")
    debit = LedgerTransaction.objects.filter(organization=organization, kind="usage").latest("id")
    keys = list(organization.keys.order_by("pk"))
    known = {
        "request_id": record.request_id.hex,
        "transaction_id": debit.pk,
        "key_id": keys[0].pk,
        "month": f"{record.admitted_at:%Y-%m}",
        "day": record.admitted_at.day,
    }
    for pattern in urlpatterns:
        names = set(pattern.pattern.converters)
        if "slug" not in names or not names <= {"slug", *known} or "revoke" in str(pattern.name):
            continue
        try:
            url = reverse(pattern.name, kwargs={name: known.get(name, organization.slug) for name in names})
        except NoReverseMatch:
            continue
        if client.get(url).status_code in (200, 302):
            yield f"{label} console {pattern.name}", client, url, {}
    usage = reverse("usage", kwargs={"slug": organization.slug})
    year = "first_day=2025-12-01&last_day=2026-02-28"
    for name, query in {
        "one idle key": f"key={keys[-1].pk}",
        "one model": "model=load/model-19",
        "failed": "outcome=failed",
        "a past quarter": year,
        "by hour": "period=7d&interval=hour",
        "by key": "period=30d&group=key",
        "by session": "period=30d&group=session",
    }.items():
        yield f"{label} console usage, {name}", client, f"{usage}?{query}", {}
    billing = reverse("billing", kwargs={"slug": organization.slug})
    for shown in ("credit", "usage"):
        yield f"{label} console billing, {shown}", client, f"{billing}?show={shown}", {}


def _api(label: str, organization: Any) -> Iterator[tuple[str, Any, str, dict[str, str]]]:
    from django.test import Client

    from accounts.keys import create_key
    from api.urls import urlpatterns
    from billing.admission.outbox import publish_pending_changes
    from billing.models import UsageRecord

    _, secret = create_key(organization, name="bench", created_by=None)
    publish_pending_changes()
    record = UsageRecord.objects.filter(organization_id=organization.pk).latest("request_id")
    client = Client(raise_request_exception=False)
    headers = {"x-api-key": secret}
    for pattern in urlpatterns:
        if pattern.pattern.converters:
            continue
        url = f"/api/v1/{pattern.pattern}" + (
            f"?id={record.request_id.hex}" if "generation" in str(pattern.pattern) else ""
        )
        if client.get(url, headers=headers).status_code == 200:
            yield f"{label} API {pattern.pattern}", client, url, headers


def _admin(hot: int, cold: int) -> Iterator[tuple[str, Any, str, dict[str, str]]]:
    from django.contrib import admin
    from django.test import Client
    from django.urls import reverse

    from accounts.models import User
    from billing.models import UsageRecord

    operator, _ = User.objects.get_or_create(
        email="operator@bench.example", defaults={"is_staff": True, "is_superuser": True}
    )
    client = Client(raise_request_exception=False)
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    yield "admin dashboard", client, "/admin/", {}
    for model in admin.site._registry:
        options = model._meta
        url = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
        yield f"admin list {options.model_name}", client, url, {}
        row = model._default_manager.order_by("-pk").first()
        if row is not None:
            change = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])
            yield f"admin page {options.model_name}", client, change, {}
    record = UsageRecord.objects.filter(organization_id=hot).latest("request_id")
    records, transactions = "/admin/billing/usagerecord/", "/admin/billing/ledgertransaction/"
    for name, url in {
        "search a request": f"{records}?q={record.request_id}",
        "search a hot organization": f"{records}?q={hot}",
        "search a cold organization": f"{records}?q={cold}",
        "search debits of a cold organization": f"{transactions}?q=load-0499",
        "top-ups of the ledger": f"{transactions}?kind__exact=top_up",
        "expiries of the ledger": f"{transactions}?kind__exact=expiry",
        "page 200 of the records": f"{records}?p=200",
        "find a request": f"/admin/find/?q={record.request_id.hex}",
    }.items():
        yield f"admin {name}", client, url, {}


def _client_of(organization: Any) -> Any:
    from allauth.account.models import EmailAddress
    from django.test import Client

    from accounts.models import Member, Role, User

    person, _ = User.objects.get_or_create(email=f"owner-{organization.pk}@bench.example")
    EmailAddress.objects.get_or_create(user=person, email=person.email, defaults={"verified": True, "primary": True})
    Member.objects.get_or_create(user=person, organization=organization, defaults={"role": Role.OWNER})
    client = Client(raise_request_exception=False)
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return client


def _backend_ms(pid: int) -> float:
    """Return the CPU that Postgres' process of our connection has used so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / NANOS_PER_MS


if __name__ == "__main__":
    main()

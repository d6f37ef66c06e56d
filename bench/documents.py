"""How long it takes to close a month for everybody: `python -m bench.documents` against a throw-away installation.

It fills October 2026 of 200 organizations through the real settlement, with the ledger's clock set to each day, closes
the month, and asks check_ledger's questions about documents. CROSSMODEL_DATA names the installation, which `make run`
must have made and must be running for its Postgres.
"""

import argparse
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import patch

MODELS = 6
DAYS = 31
MONTH = "2026-10"
BATCH_EVENTS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--organizations", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2_000, help="of each organization in the month")
    options = parser.parse_args()
    import os

    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    import django

    django.setup()
    from django.conf import settings

    if settings.PRODUCTION:
        raise SystemExit("This fills the books with what never happened: not in production.")
    started = time.perf_counter()
    fill(options.organizations, options.requests)
    print(f"{options.organizations} x {options.requests:,} requests settled in {time.perf_counter() - started:.1f} s")
    close()


def fill(organizations: int, requests: int) -> None:
    """Make organizations with credit, and settle their requests day by day."""
    from accounts.keys import create_key
    from accounts.organizations import create_organization
    from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
    from billing.credit.top_ups import grant_credit
    from billing.models import CreditLot, LanguageModel
    from billing.shards import shard_of

    stamp = int(time.time())
    versions = []
    for number in range(MODELS):
        model = LanguageModel.objects.create(
            model_id=f"bench/{stamp}-{number}", context_tokens=1_000_000, max_output_tokens=64_000
        )
        tiers = {"input": ((0, 3_000_000),), "output": ((0, 15_000_000),), "cache_read": ((0, 300_000),)}
        draft = PriceDraft(datetime(2026, 1, 1, tzinfo=UTC), "bench", date(2026, 1, 1), tiers)
        versions.append(approve_price_version(draft_price(model, draft, created_by="a"), approved_by="b"))
    keys = []
    with _posted_at(datetime(2026, 10, 1, tzinfo=UTC)):
        for number in range(organizations):
            organization = create_organization(name=f"Bench {stamp} {number}")
            for kind, usd in ((CreditLot.Kind.PROMOTIONAL, 5), (CreditLot.Kind.PAID, 500)):
                grant_credit(
                    organization,
                    amount_nanos=usd * 10**9,
                    kind=kind,
                    reason="bench",
                    actor="bench",
                    idempotency_key=f"bench:{stamp}:{number}:{kind}",
                )
            keys.append(create_key(organization, name="Bench", created_by=None)[0])
    by_shard: dict[int, list[Any]] = {}
    for key in keys:
        by_shard.setdefault(shard_of(key.organization_id), []).append(key)
    for day in range(DAYS):
        moment = datetime(2026, 10, 1, 1, tzinfo=UTC) + timedelta(days=day)
        with _posted_at(moment + timedelta(hours=22)):
            for shard, members in by_shard.items():
                _settle_day(shard, members, versions, moment, -(-requests // DAYS))


def _settle_day(shard: int, keys: list[Any], versions: list[Any], moment: datetime, requests: int) -> None:
    from billing.settlement.batch import settle_batch
    from billing.usage_stream import StreamEntry
    from tests.support.settled_usage import billed_event

    entries: list[StreamEntry] = []
    for key in keys:
        for number in range(requests):
            at = moment + timedelta(seconds=number)
            counts = {"input_tokens": 900 + number, "output_tokens": 100 + number, "cache_read_tokens": number}
            event = billed_event(key, versions[number % MODELS], at=at, **counts)
            entries.append(
                StreamEntry(
                    f"{event.admitted_at_ms}-{len(entries)}",
                    event.encode(),
                    event.organization_id,
                    event.key_id,
                    event.cost_nanos,
                    event.admitted_day,
                )
            )
    # Of every organization a few events in each batch, as it is when all of them call at once.
    entries.sort(key=lambda entry: entry.stream_id)
    for start in range(0, len(entries), BATCH_EVENTS):
        settle_batch(shard, entries[start : start + BATCH_EVENTS])


def close() -> None:
    from billing.checks.documents import DOCUMENT_CHECKS
    from billing.checks.invariant import run_checks
    from billing.documents.closing import close_everywhere
    from billing.documents.periods import parse_month

    started = time.perf_counter()
    closings = list(close_everywhere(parse_month(MONTH)))
    seconds = time.perf_counter() - started
    failed = [closing for closing in closings if closing.error]
    documents = sum(len(closing.documents) for closing in closings)
    print(f"{documents} documents of {len(closings)} organizations in {seconds:.1f} s, {len(failed)} failed")
    breaks = run_checks(DOCUMENT_CHECKS).breaks
    print(f"{len(breaks)} breaks of I12")
    for line in breaks[:10]:
        print(" ", line)


def _posted_at(moment: datetime) -> Any:
    """Let the ledger post at another time than Postgres' clock says."""
    from billing.ledger import rows

    allocate = rows.allocate_ids
    return patch.object(rows, "allocate_ids", lambda table, count: (allocate(table, count)[0], moment))


if __name__ == "__main__":
    main()

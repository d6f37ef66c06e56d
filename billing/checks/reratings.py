"""Re-ratings: what a request costs since is what its new price comes to, and what the ledger moved for it."""

from billing.catalog.price_versions import price_table
from billing.checks.books import MAX_BREAKS_LISTED, Books, Outcome
from billing.checks.invariant import Check
from billing.models import PriceVersion
from billing.money import say_usd
from billing.pricing.cost import PricingError, Usage, cost_nanos
from billing.usage_event import USAGE_COUNTS

RERATED = "SELECT count(*) FROM billing_reratedrequest WHERE POSTED(ledger_transaction_id)"
# The truth about an orphan counts where it was known by then.
_COUNTS = ", ".join(
    f"CASE WHEN truth.settled_at < ledger.created_at THEN truth.{name} ELSE record.{name} END" for name in USAGE_COUNTS
)


def reratings_move_what_they_say(books: Books) -> Outcome:
    """Each re-rating's transaction moved the sum of its requests' differences; each request had cost that before."""
    return books.judge(
        RERATED,
        """SELECT format('transaction %s moved %s nanos of revenue, the requests that it re-rated differ by %s',
                ledger.id, coalesce(moved.nanos, 0), coalesce(differences.nanos, 0))
            FROM billing_ledgertransaction ledger
            LEFT JOIN (SELECT ledger_transaction_id, sum(cost_after_nanos - cost_before_nanos) AS nanos
                FROM billing_reratedrequest WHERE POSTED(ledger_transaction_id) GROUP BY 1) differences
                ON differences.ledger_transaction_id = ledger.id
            LEFT JOIN (SELECT entry.transaction_id, sum(entry.amount_nanos) AS nanos FROM billing_ledgerentry entry
                JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
                WHERE POSTED(entry.transaction_id) GROUP BY 1) moved ON moved.transaction_id = ledger.id
            WHERE ledger.kind = 'rerating' AND POSTED(ledger.id)
              AND coalesce(moved.nanos, 0) <> coalesce(differences.nanos, 0) ORDER BY ledger.id""",
        """SELECT format('request %s of organization %s was re-rated by transaction %s, which is not about that',
                rerated.request_id, rerated.organization_id, rerated.ledger_transaction_id)
            FROM billing_reratedrequest rerated
            LEFT JOIN billing_ledgertransaction ledger
                ON ledger.id = rerated.ledger_transaction_id AND POSTED(ledger.id)
            WHERE POSTED(rerated.ledger_transaction_id) AND (ledger.kind = 'rerating'
                AND ledger.organization_id = rerated.organization_id
                AND ledger.idempotency_key LIKE format('rerating:%s:%%', rerated.rerating_id)) IS NOT TRUE
            ORDER BY rerated.id""",
        """SELECT format('request %s had not cost %s nanos when it was re-rated', rerated.request_id,
                rerated.cost_before_nanos)
            FROM billing_reratedrequest rerated
            LEFT JOIN billing_usagerecord record USING (request_id)
            LEFT JOIN billing_usagecorrection truth ON truth.request_id = rerated.request_id
            LEFT JOIN LATERAL (SELECT cost_after_nanos FROM billing_reratedrequest earlier
                WHERE earlier.request_id = rerated.request_id AND earlier.id < rerated.id
                ORDER BY earlier.id DESC LIMIT 1) earlier ON true
            WHERE POSTED(rerated.ledger_transaction_id) AND rerated.cost_before_nanos IN
                (record.cost_nanos, truth.cost_after_nanos, earlier.cost_after_nanos) IS NOT TRUE
            ORDER BY rerated.id""",
    )


def rerated_requests_cost_their_new_price(books: Books) -> Outcome:
    """Never less; more only where that much had been refunded, which is not given back a second time."""
    tables = {
        version.pk: price_table(version)
        for version in PriceVersion.objects.filter(reratings__isnull=False).prefetch_related("components").distinct()
    }
    breaks: list[str] = []
    for request_id, before, after, version_id, factor_ppm, *counts in books.stream(
        f"""SELECT rerated.request_id, rerated.cost_before_nanos, rerated.cost_after_nanos, rerating.price_version_id,
                record.factor_ppm, {_COUNTS}
            FROM billing_reratedrequest rerated JOIN billing_rerating rerating ON rerating.id = rerated.rerating_id
            JOIN billing_ledgertransaction ledger ON ledger.id = rerated.ledger_transaction_id
            JOIN billing_usagerecord record ON record.request_id = rerated.request_id
            LEFT JOIN billing_usagecorrection truth ON truth.request_id = rerated.request_id
            WHERE POSTED(rerated.ledger_transaction_id) AND POSTED(ledger.id) ORDER BY rerated.id"""  # noqa: S608  Constants.
    ):
        try:
            priced = cost_nanos(Usage(*counts), tables[version_id], factor_ppm)
        except PricingError as error:
            breaks.append(f"request {request_id} was re-rated by price version {version_id}: {error}")
            continue
        if after != priced and not priced < after <= before:
            breaks.append(
                f"request {request_id} costs {say_usd(after)} since its re-rating; by price version {version_id} it is"
                f" {say_usd(priced)}"
            )
        if len(breaks) >= MAX_BREAKS_LISTED:
            break
    return Outcome(books.count(RERATED), breaks)


RERATING_CHECKS = (
    Check("I9", "re-ratings move what they say", reratings_move_what_they_say),
    Check("I9", "re-rated requests cost their new price", rerated_requests_cost_their_new_price),
)

"""What operators do to the ledger, each with an idempotency key, and how to see that it took effect exactly once."""

import io
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.core.management import CommandError, call_command
from django.db.models import Sum

from accounts.models import Organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.catalog.snapshot import load_snapshot
from billing.corrections.refunds import InvalidRefundError, adjust_balance, refund_usage
from billing.corrections.rerating import ReratingPlan, apply_rerating, plan_rerating
from billing.credit.redemption import CodeUsedUpError, NewCode, create_codes, redeem
from billing.credit.top_ups import grant_credit, record_payment
from billing.ledger.book import IdempotencyConflictError
from billing.models import (
    CreditLot,
    LanguageModel,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    PriceVersion,
    ReratedRequest,
    UsageRecord,
)
from billing.usage.corrected import show_corrected
from tests.support.live_stack import MODEL, Tenant
from tests.support.operators import as_root

ACTOR, REASON = "a operator", "for a test"
SMALL_NANOS = (1_000_000, 20_000_000)  # A tenth of a cent to two cents.
CODE_NANOS = 5_000_000
CODES = 2  # Each may be redeemed once; three organizations try.
PARTS = 3  # A refund of a part is of a third.
CHEAPER_PERCENT = 90
RERATING_SOURCE = "what the fault suite prices again by"
FAR_AHEAD = timedelta(days=3650)  # The cheaper price is never live.
KINDS = ("payment", "grant", "adjustment", "charge", "refund", "part refund", "refund by command", "code")
WEIGHTS = (3, 2, 2, 2, 4, 3, 2, 1)


class RefusedError(Exception):
    """Nothing was posted, for a good reason: the code is used up, the request is not (or no longer) charged."""


@dataclass(frozen=True)
class LedgerOperation:
    """`act` says whether it was new; it raises RefusedError, IdempotencyConflictError, or that Postgres is gone.

    `amount_nanos` is what it adds to the balance; None: what the request cost at that time. `act_otherwise` asks for
    another amount under the same key.
    """

    name: str
    organization: Organization
    ledger_key: str
    amount_nanos: int | None
    act: Callable[[], bool]
    act_otherwise: Callable[[], bool] | None = None
    request: UsageRecord | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.ledger_key}"

    @property
    def invariant(self) -> str:
        return "I11" if self.name == "payment" else "I9"

    def violations(self, *, was_posted: bool) -> list[str]:
        """Name what the ledger has of it beside what it should, and whether its key lets something else pass."""
        # The key of a refund holds the number of the charge, which is another one after Postgres was restored.
        found = LedgerTransaction.objects.filter(idempotency_key__endswith=self.ledger_key)
        if found.count() != was_posted:
            state = "posted" if was_posted else "refused"
            return [f"{self.invariant} {self} was {state} and has {found.count()} transactions"]
        if not was_posted:
            return []
        own = LedgerEntry.objects.filter(transaction__in=found, account__organization=self.organization)
        amount = own.aggregate(total=Sum("amount_nanos"))["total"]
        if self.amount_nanos is not None and amount != self.amount_nanos:
            return [f"{self.invariant} {self} moved {amount} nanos, not {self.amount_nanos}"]
        if self.request is not None:
            # It may have been given back before the truth about an orphan was known, or after it.
            [corrected] = show_corrected(list(UsageRecord.objects.filter(request_id=self.request.request_id)))
            cost = max(self.request.cost_nanos, corrected.cost_nanos)
            if not 0 < amount <= cost:
                return [f"I9 {self} gave {amount} of {cost} nanos back"]
        if self.act_otherwise is not None:
            try:
                self.act_otherwise()
            except IdempotencyConflictError:
                return []
            except RefusedError as error:
                return [f"{self.invariant} the key of {self} was not known again: {error}"]
            return [f"I9 {self} was taken for another input too"]
        return []


def draw_operation(
    name: str,
    chance: random.Random,
    tenants: Sequence[Tenant],
    codes: Sequence[NewCode],
    earlier: Sequence[LedgerOperation],
) -> LedgerOperation | None:
    """Think of a operation; None when what it needs is not there (yet). `name` makes its idempotency key."""
    organization = chance.choice(tenants).organization
    kind = chance.choices(KINDS, WEIGHTS)[0]
    amount = chance.randint(*SMALL_NANOS)
    if kind == "code":
        operation = _redemption(organization, chance.choice(codes))
        return None if operation.ledger_key in {known.ledger_key for known in earlier} else operation
    if "refund" in kind:
        refunded = {known.request.request_id for known in earlier if known.request is not None}
        ids = [tenant.organization.pk for tenant in tenants]
        charged = UsageRecord.objects.filter(organization_id__in=ids, cost_nanos__gt=100).exclude(pk__in=refunded)
        record = chance.choice(list(charged[:50]) or [None])
        return None if record is None else _refund(kind, name, record)
    if kind == "payment":
        return _payment(organization, name, amount)
    if kind == "grant":
        return _grant(organization, name, amount)
    # Only of who can pay: what is taken by hand may pass the bound of I6.
    return _adjustment(tenants[0].organization, name, -amount if kind == "charge" else amount)


def _payment(organization: Organization, name: str, amount: int) -> LedgerOperation:
    def pay(nanos: int) -> bool:
        return record_payment(organization, payment_provider="test", payment_id=name, amount_nanos=nanos).is_new

    key = f"payment:test:{name}"
    return LedgerOperation("payment", organization, key, amount, lambda: pay(amount), lambda: pay(amount + 1))


def _grant(organization: Organization, name: str, amount: int) -> LedgerOperation:
    key = f"grant:{name}"

    def grant(nanos: int) -> bool:
        kind = CreditLot.Kind.PROMOTIONAL
        return grant_credit(
            organization, amount_nanos=nanos, kind=kind, reason=REASON, actor=ACTOR, idempotency_key=key
        ).is_new

    return LedgerOperation("grant", organization, key, amount, lambda: grant(amount), lambda: grant(amount + 1))


def _adjustment(organization: Organization, name: str, amount: int) -> LedgerOperation:
    key = f"adjustment:{name}"

    def adjust(nanos: int) -> bool:
        return adjust_balance(organization, amount_nanos=nanos, reason=REASON, actor=ACTOR, idempotency_key=key).is_new

    return LedgerOperation("adjustment", organization, key, amount, lambda: adjust(amount), lambda: adjust(amount + 1))


def _redemption(organization: Organization, code: NewCode) -> LedgerOperation:
    def act() -> bool:
        try:
            return redeem(organization, code=code.text, actor=ACTOR).posted.is_new
        except CodeUsedUpError as error:
            raise RefusedError(str(error)) from None

    key = f"redemption:{code.code.pk}:{organization.pk}"
    return LedgerOperation("code", organization, key, code.code.amount_nanos, act)


def _refund(kind: str, name: str, record: UsageRecord) -> LedgerOperation:
    organization = Organization.objects.get(pk=record.organization_id)
    part = record.cost_nanos // PARTS if kind == "part refund" else None

    def refund(nanos: int | None) -> bool:
        try:
            return refund_usage(
                organization,
                request_id=record.request_id,
                amount_nanos=nanos,
                reason=REASON,
                actor=ACTOR,
                idempotency_key=name,
            ).is_new
        except InvalidRefundError as error:
            raise RefusedError(str(error)) from None

    def command() -> bool:
        arguments = (record.request_id.hex, "--reason", REASON, "--idempotency-key", name, *as_root())
        output = io.StringIO()
        try:
            call_command("refund", *arguments, stdout=output)
        except CommandError as error:
            raise (IdempotencyConflictError if "used before" in str(error) else RefusedError)(str(error)) from None
        return "Refunded before" not in output.getvalue()

    act = command if kind == "refund by command" else lambda: refund(part)
    key = f":{record.request_id.hex}:{name}"
    return LedgerOperation(kind, organization, key, part, act, lambda: refund(1), record)


@dataclass(frozen=True)
class Rerating:
    """Every request since `begins` is priced again, 10 % cheaper, as often as anyone likes: it is given back once."""

    language_model: LanguageModel
    price_version: PriceVersion
    begins: datetime

    @classmethod
    def prepare(cls) -> "Rerating":
        """Find the price that is never live, or draft and approve it."""
        language_model = LanguageModel.objects.get(model_id=MODEL)
        known = PriceVersion.objects.filter(language_model=language_model, source=RERATING_SOURCE).first()
        return cls(language_model, known or _approve_cheaper_price(language_model), datetime.now(UTC))

    def run(self) -> None:
        apply_rerating(self._plan(), actor=ACTOR, reason=REASON)

    def violations(self) -> list[str]:
        """I9: nothing is left to post, and what was posted is what requests cost less, by transaction."""
        found = []
        left = plan_rerating(self._plan())
        if left:
            found.append(f"I9 the re-rating, run again, would post {left}")
        rows = list(ReratedRequest.objects.filter(rerating__begins=self.begins).order_by("pk"))
        given: dict[int, int] = defaultdict(int)
        records = list(UsageRecord.objects.filter(request_id__in={row.request_id for row in rows}))
        cost = {record.request_id: record.cost_nanos for record in records}
        # An orphan may be re-rated before the truth about it is known, or after it.
        corrected = {record.request_id: record.cost_nanos for record in show_corrected(records)}
        for row in rows:
            given[row.ledger_transaction_id] += row.cost_before_nanos - row.cost_after_nanos
            if row.cost_before_nanos not in (cost.get(row.request_id), corrected.get(row.request_id)):
                found.append(f"I9 request {row.request_id} was re-rated from {row.cost_before_nanos} nanos")
            cost[row.request_id] = row.cost_after_nanos
        revenue = LedgerEntry.objects.filter(account__kind=LedgerAccount.Kind.REVENUE, transaction__in=given)
        posted = dict(revenue.values_list("transaction_id").annotate(total=Sum("amount_nanos")))
        if posted != {number: -nanos for number, nanos in given.items()}:
            found.append(f"I9 the re-rating posted {posted}, and what requests cost less is {dict(given)}")
        return found

    def _plan(self) -> ReratingPlan:
        return ReratingPlan(self.language_model, self.price_version, self.begins, datetime.now(UTC))


def _approve_cheaper_price(language_model: LanguageModel) -> PriceVersion:
    now = datetime.now(UTC)
    catalog_model = load_snapshot().find(MODEL)
    price = catalog_model.price_at(now) if catalog_model is not None else None
    assert price is not None
    tiers = {
        component: tuple((start, picos * CHEAPER_PERCENT // 100) for start, picos in steps)
        for component, steps in price.tiers.items()
    }
    draft = PriceDraft(effective_from=now + FAR_AHEAD, source=RERATING_SOURCE, source_date=now.date(), tiers=tiers)
    return approve_price_version(draft_price(language_model, draft, created_by="alice"), approved_by="bob")


def make_codes() -> list[NewCode]:
    """Make codes of which each may be redeemed by one organization."""
    return create_codes(amount_nanos=CODE_NANOS, reason=REASON, created_by=ACTOR, count=CODES)

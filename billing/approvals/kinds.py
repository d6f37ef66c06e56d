"""The kinds of change that operators ask for: who may ask, what counts against bounds, and how each is applied.

Terms are JSON, so that what waits is exactly what was asked. Each change goes through the one function of its noun.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from accounts.models import Organization
from accounts.organizations import change_organization
from billing.approvals.reratings import check_rerating, describe_rerating
from billing.corrections.refunds import (
    InvalidAdjustmentError,
    InvalidRefundError,
    adjust_balance,
    refund_usage,
)
from billing.corrections.rerating import ReratingError
from billing.credit.top_ups import InvalidTopUpError, grant_credit
from billing.ledger.book import IdempotencyConflictError, PostedTransaction
from billing.models import Approval, CreditLot, OrganizationPriceFactor, TopUp
from billing.money import format_usd
from billing.payments.provider import PaymentRefusedError
from billing.payments.recurring import InvalidRecurringCreditError, include_monthly
from billing.payments.refunds import InvalidPaymentRefundError, order_refund
from billing.pricing.cost import FACTOR_ONE_PPM, MAX_FACTOR_PPM

Kind = Approval.Kind


class ChangeError(ValueError):
    """The change cannot be made like this; the text says why."""


# What the domain refuses a change with; each text says why.
REFUSALS = (
    ChangeError,
    InvalidAdjustmentError,
    InvalidPaymentRefundError,
    InvalidRecurringCreditError,
    InvalidRefundError,
    InvalidTopUpError,
    PaymentRefusedError,
    ReratingError,
    IdempotencyConflictError,
)


@dataclass(frozen=True, slots=True)
class Change:
    """`permission` is what the asker needs; `apply` returns what was posted, if it posts."""

    permission: str
    apply: Callable[[Approval, str], PostedTransaction | None]
    describe: Callable[[Mapping[str, Any]], str]


def _grant(approval: Approval, actor: str) -> PostedTransaction:
    terms = approval.terms
    return grant_credit(
        _organization(approval),
        amount_nanos=terms["amount_nanos"],
        kind=CreditLot.Kind(terms["lot_kind"]),
        reason=approval.reason,
        actor=actor,
        idempotency_key=approval.idempotency_key,
        expires_at=_moment(terms["expires_at"]),
        priority=terms["priority"],
    )


def _adjust(approval: Approval, actor: str) -> PostedTransaction:
    terms = approval.terms
    return adjust_balance(
        _organization(approval),
        amount_nanos=terms["amount_nanos"],
        reason=approval.reason,
        actor=actor,
        idempotency_key=approval.idempotency_key,
        lot_kind=CreditLot.Kind(terms["lot_kind"]),
    )


def _set_credit_limit(approval: Approval, actor: str) -> None:
    organization = Organization.objects.select_for_update().get(pk=_organization(approval).pk)
    if organization.credit_limit_nanos != approval.terms["from_nanos"]:
        raise ChangeError(
            f"The credit limit has changed meanwhile: it is {format_usd(organization.credit_limit_nanos)} USD."
        )
    change_organization(organization, fields={"credit_limit_nanos": approval.terms["to_nanos"]})


def _add_price_factor(approval: Approval, actor: str) -> None:
    """From its date or from now, whichever is later: a factor may not change the past."""
    terms = approval.terms
    if not 0 <= terms["factor_ppm"] <= MAX_FACTOR_PPM:
        raise ChangeError(f"A factor lies between 0 and {MAX_FACTOR_PPM / FACTOR_ONE_PPM:g}.")
    now = timezone.now()
    effective_from = max(_moment(terms["effective_from"]) or now, now)
    effective_to = _moment(terms["effective_to"])
    if effective_to is not None and effective_to <= effective_from:
        raise ChangeError("The factor would end before it begins.")
    OrganizationPriceFactor.objects.create(
        organization=_organization(approval),
        factor_ppm=terms["factor_ppm"],
        effective_from=effective_from,
        effective_to=effective_to,
        reason=approval.reason[:300],
        created_by=actor,
    )


def _refund_usage(approval: Approval, actor: str) -> PostedTransaction:
    terms = approval.terms
    return refund_usage(
        _organization(approval),
        request_id=UUID(terms["request_id"]),
        amount_nanos=terms["amount_nanos"],
        reason=approval.reason,
        actor=actor,
        # The ledger's key names the request by itself.
        idempotency_key=approval.idempotency_key.removeprefix(f"{Kind.USAGE_REFUND}:{terms['request_id']}:"),
    )


def _order_payment_refund(approval: Approval, actor: str) -> None:
    """The provider is asked after the commit (book.finish), or by the job that asks for refunds without an answer."""
    order_refund(
        TopUp.objects.get(pk=approval.terms["top_up_id"]),
        amount_nanos=approval.terms["amount_nanos"],
        reason=approval.reason,
        actor=actor,
        idempotency_key=approval.idempotency_key,
        even_if_disputed=approval.terms["even_if_disputed"],
    )


def _include_monthly(approval: Approval, actor: str) -> None:
    terms = approval.terms
    last_month = terms["last_month"]
    include_monthly(
        _organization(approval),
        amount_nanos=terms["amount_nanos"],
        first_month=date.fromisoformat(terms["first_month"]),
        last_month=date.fromisoformat(last_month) if last_month else None,
        reason=approval.reason,
        created_by=actor,
    )


def _release_codes(approval: Approval, actor: str) -> None:
    """Nothing: codes look at their approval when they are redeemed."""


def _check_rerating(approval: Approval, actor: str) -> None:
    """Only see whether it still holds: each organization's requests are posted after the commit (book.finish)."""
    check_rerating(approval.terms, approval.amount_nanos)


def _credit_text(terms: Mapping[str, Any]) -> str:
    until = f", until {terms['expires_at'][:10]}" if terms.get("expires_at") else ""
    return f"{terms['lot_kind']} credit of {format_usd(terms['amount_nanos'])} USD{until}"


CHANGES: dict[str, Change] = {
    Kind.GRANT: Change("billing.add_creditlot", _grant, _credit_text),
    Kind.ADJUSTMENT: Change(
        "billing.adjust_balance", _adjust, lambda terms: f"balance by {format_usd(terms['amount_nanos'])} USD"
    ),
    Kind.CREDIT_LIMIT: Change(
        "billing.change_credit_limit",
        _set_credit_limit,
        lambda terms: f"from {format_usd(terms['from_nanos'])} to {format_usd(terms['to_nanos'])} USD",
    ),
    Kind.PRICE_FACTOR: Change(
        "billing.add_organizationpricefactor",
        _add_price_factor,
        lambda terms: (
            f"factor {terms['factor_ppm'] / FACTOR_ONE_PPM:g}"
            + (f" from {terms['effective_from'][:10]}" if terms["effective_from"] else "")
            + (f" to {terms['effective_to'][:10]}" if terms["effective_to"] else "")
        ),
    ),
    Kind.USAGE_REFUND: Change(
        "billing.add_ledgertransaction",
        _refund_usage,
        lambda terms: (
            f"request {terms['request_id']}"
            + (
                f", {format_usd(terms['amount_nanos'])} USD of it"
                if terms["amount_nanos"] is not None
                else ", all of it"
            )
        ),
    ),
    Kind.PAYMENT_REFUND: Change(
        "billing.change_topup",
        _order_payment_refund,
        lambda terms: (
            f"{format_usd(terms['amount_nanos'])} USD of top-up {terms['top_up_id']}"
            + (", although it is disputed" if terms["even_if_disputed"] else "")
        ),
    ),
    Kind.RECURRING_CREDIT: Change(
        "billing.add_recurringcredit",
        _include_monthly,
        lambda terms: (
            f"{format_usd(terms['amount_nanos'])} USD a month from {terms['first_month'][:7]}"
            + (f" to {terms['last_month'][:7]}" if terms["last_month"] else "")
        ),
    ),
    Kind.CODES: Change(
        "billing.add_redemptioncode",
        _release_codes,
        lambda terms: f"{terms['count']} codes of {format_usd(terms['amount_nanos'])} USD, {terms['uses']} uses each",
    ),
    Kind.RERATING: Change("billing.adjust_balance", _check_rerating, describe_rerating),
}


def describe(approval: Approval) -> str:
    """Return what was asked for in words, without whom it is for."""
    return CHANGES[approval.kind].describe(approval.terms)


def _organization(approval: Approval) -> Organization:
    assert approval.organization is not None  # noqa: S101  only codes and re-ratings have none
    return approval.organization


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

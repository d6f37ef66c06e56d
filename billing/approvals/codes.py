"""Redemption codes that may wait: they are made and shown at once, and nobody redeems them before they are approved."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from accounts.models import User
from billing.approvals.book import Asked, ask
from billing.credit.redemption import NewCode, create_codes
from billing.models import Approval


def ask_for_codes(
    values: Mapping[str, Any], *, asked_by: User, idempotency_key: str, created_by: str, shell_user: str = ""
) -> tuple[Asked, list[NewCode]]:
    """Make codes as credit.redemption.create_codes() takes them; the same key again makes none.

    What counts is all that they could give: amount times codes times uses. Raises InvalidCodeError, ApprovalError,
    ChangeError, IdempotencyConflictError.
    """
    amount, count, uses = values["amount_nanos"], values["count"], values["max_redemptions"]
    with transaction.atomic():
        asked = ask(
            Approval.Kind.CODES,
            organization=None,
            terms={"amount_nanos": amount, "count": count, "uses": uses},
            amount_nanos=max(0, amount * count * uses),
            reason=values["reason"],
            asked_by=asked_by,
            idempotency_key=idempotency_key,
            shell_user=shell_user,
        )
        made = create_codes(**values, created_by=created_by, approval=asked.approval) if asked.is_new else []
    return asked, made

"""One mail to each person who may approve prices, for the drafts that were made together, queued with them."""

from collections.abc import Sequence

from accounts.models import User
from accounts.staff_roles import operators_who_may
from billing.mail_outbox import MailToQueue, queue_mails
from billing.models import PriceVersion

APPROVE_PERMISSION = "billing.change_priceversion"
MAIL_TEMPLATE = "price_drafts"
MAX_DRAFTS_NAMED = 1_000


def may_approve(user: User) -> bool:
    """Say whether the person's role permits to approve prices that others drafted."""
    return user.is_staff and user.has_perm(APPROVE_PERMISSION)


def tell_who_may_approve(drafts: Sequence[PriceVersion]) -> None:
    """Queue the mails, but none to who drafted; the same drafts queue none again."""
    if not drafts:
        return
    numbers = sorted(draft.pk for draft in drafts)
    drafters = {draft.drafted_by_id for draft in drafts}
    queue_mails(
        MailToQueue(
            user_id=user.pk,
            template=MAIL_TEMPLATE,
            once_key=f"price_drafts:{numbers[0]}-{numbers[-1]}:{user.pk}",
            context={"drafts": numbers[:MAX_DRAFTS_NAMED]},
        )
        for user in operators_who_may(APPROVE_PERMISSION)
        if {user.pk} != drafters
    )

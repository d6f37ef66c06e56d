"""One mail to each person who may decide when a change of money waits, queued in the transaction that lets it wait."""

from accounts.models import User
from accounts.staff_roles import operators_who_may
from billing.mail_outbox import MailToQueue, queue_mails
from billing.models import Approval

APPROVE_PERMISSION = "billing.change_approval"
MAIL_TEMPLATE = "approval"


def may_decide(approval: Approval, user: User) -> bool:
    """Say whether the person could approve it: their role permits it, and they did not ask for it."""
    return user.pk != approval.asked_by_id and user.is_staff and user.has_perm(APPROVE_PERMISSION)


def tell_who_may_decide(approval: Approval) -> None:
    """Queue the mails; the same approval queues none again."""
    queue_mails(
        MailToQueue(
            user_id=user.pk,
            template=MAIL_TEMPLATE,
            once_key=f"approval:{approval.pk}:{user.pk}",
            context={"approval": approval.pk},
        )
        for user in operators_who_may(APPROVE_PERMISSION)
        if user.pk != approval.asked_by_id
    )

"""Posts re-ratings that were decided, and goes on with those that were cut short: a job's work.

Twice at once, or again after it was killed, posts nothing twice: what a request costs by now is looked at under the
lock of its organization.
"""

from collections.abc import Sequence

from django.utils import timezone

from billing.approvals.actors import actor_of
from billing.approvals.reratings import check_differences, plan_of
from billing.corrections.rerating import ReratingError, apply_rerating, plan_rerating
from billing.models import Approval, ReratedRequest

MAX_AT_ONCE = 100


def decided_reratings() -> Sequence[Approval]:
    """Return the re-ratings that are decided and not posted whole, oldest first."""
    rows = Approval.objects.filter(kind=Approval.Kind.RERATING, state=Approval.State.APPLIED, finished_at=None)
    return list(rows.select_related("asked_by", "decided_by").order_by("id")[:MAX_AT_ONCE])


def post_decided_reratings() -> int:
    """Post all that is decided, and return how many re-ratings were posted whole.

    One that cannot be ended holds up no other. Raises its ReratingError after them.
    """
    posted, failures = 0, []
    for approval in decided_reratings():
        try:
            posted += post_rerating(approval)
        except ReratingError as error:
            failures.append(ReratingError(f"{approval}: {error}"))
    if failures:
        raise failures[0]
    return posted


def post_rerating(approval: Approval) -> bool:
    """Post one, and say whether it was: what would move more than was asked for is refused, before anything is posted.

    Raises ReratingError when it was begun and cannot be ended; somebody must look.
    """
    plan = plan_of(approval.terms)
    is_begun = approval.reratings.exists()
    try:
        differences = plan_rerating(plan)
        if differences and not is_begun:
            check_differences(differences, approval.amount_nanos)
    except ReratingError as error:
        if is_begun:
            raise
        _end(approval, state=Approval.State.REFUSED, decision=str(error)[:500])
        return False
    apply_rerating(
        plan,
        actor=actor_of(approval),
        reason=approval.reason,
        approval=approval,
        differences=differences,
    )
    _end(approval, state=Approval.State.APPLIED, decision=approval.decision)
    return True


def count_posted(approval: Approval) -> int:
    """Return how many requests of a re-rating have been posted by now."""
    return ReratedRequest.objects.filter(rerating__approval=approval).values("request_id").distinct().count()


def _end(approval: Approval, *, state: Approval.State, decision: str) -> None:
    """Write down that nothing is left to do, once."""
    now = timezone.now()
    open_row = Approval.objects.filter(pk=approval.pk, finished_at=None)
    if open_row.update(state=state, decision=decision, finished_at=now):
        approval.state, approval.decision, approval.finished_at = state, decision, now

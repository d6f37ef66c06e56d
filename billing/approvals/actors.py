"""Who stands in the ledger for a change that operators decided."""

from billing.models import Approval

MAX_ACTOR_CHARS = 254
APPROVED_BY = ", approved by "  # Between two people: the guards of erased people know it, too (migration 0038).


def actor_of(approval: Approval) -> str:
    """Return who asked, from which shell, and who approved."""
    asked = str(approval.asked_by) + (f" (shell:{approval.shell_user})" if approval.shell_user else "")
    both = f"{asked}{APPROVED_BY}{approval.decided_by}" if approval.decided_by else asked
    return both if len(both) <= MAX_ACTOR_CHARS else str(approval.asked_by)

"""Who stands in the ledger for a change that operators decided."""

from billing.ledger.seals import APPROVED_BY
from billing.models import Approval

MAX_ACTOR_CHARS = 254


def actor_of(approval: Approval) -> str:
    """Return who asked, from which shell, and who approved."""
    asked = str(approval.asked_by) + (f" (shell:{approval.shell_user})" if approval.shell_user else "")
    both = f"{asked}{APPROVED_BY}{approval.decided_by}" if approval.decided_by else asked
    return both if len(both) <= MAX_ACTOR_CHARS else str(approval.asked_by)

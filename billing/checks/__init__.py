"""The invariants of the book of record, as far as stored rows can refute them. `manage.py check_ledger` runs them.

A check is a function that returns an Outcome; CHECKS lists them by the number of the invariant. Whoever has another
one (a provider's bill) adds it to the list that it passes to run_checks(). Redis is compared by admission_check().
"""

from billing.checks.accounts import ACCOUNT_CHECKS
from billing.checks.admission import admission_check
from billing.checks.documents import DOCUMENT_CHECKS
from billing.checks.estimates import estimates_check
from billing.checks.invariant import Check, Outcome, Report, run_checks
from billing.checks.journal import journal_check
from billing.checks.lots import LOT_CHECKS
from billing.checks.payments import PAYMENT_CHECKS
from billing.checks.roll_ups import ROLL_UP_CHECKS
from billing.checks.transactions import TRANSACTION_CHECKS
from billing.checks.usage import USAGE_CHECKS

CHECKS: tuple[Check, ...] = (
    *ACCOUNT_CHECKS,
    *TRANSACTION_CHECKS,
    *USAGE_CHECKS,
    *ROLL_UP_CHECKS,
    *LOT_CHECKS,
    *PAYMENT_CHECKS,
    *DOCUMENT_CHECKS,
)

__all__ = [
    "CHECKS",
    "Check",
    "Outcome",
    "Report",
    "admission_check",
    "estimates_check",
    "journal_check",
    "run_checks",
]

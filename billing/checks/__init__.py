"""The invariants of the book of record, as far as stored rows can refute them. `manage.py check_ledger` runs them.

A check is a function that returns an Outcome; CHECKS lists them by the number of the invariant. Whoever has another
one (a provider's bill) adds it to the list that it passes to run_checks(). Redis is compared by admission_check().

Most read one span of the books at a time (books.py); months that were proven are read again in turn (months.py).
"""

from billing.checks.accounts import ACCOUNT_CHECKS
from billing.checks.admission import admission_check
from billing.checks.books import EVERYTHING, Books, Outcome, Span
from billing.checks.documents import DOCUMENT_CHECKS
from billing.checks.estimates import estimates_check
from billing.checks.invariant import Check, Report, run_checks
from billing.checks.journal import journal_check
from billing.checks.lots import LOT_CHECKS
from billing.checks.months import open_months, prove_due_months, proven_check, proven_months, span_of
from billing.checks.payments import PAYMENT_CHECKS
from billing.checks.reratings import RERATING_CHECKS
from billing.checks.roll_ups import ROLL_UP_CHECKS
from billing.checks.seals import SEAL_CHECKS
from billing.checks.transactions import TRANSACTION_CHECKS
from billing.checks.usage import USAGE_CHECKS

CHECKS: tuple[Check, ...] = (
    *ACCOUNT_CHECKS,
    *TRANSACTION_CHECKS,
    *SEAL_CHECKS,
    *USAGE_CHECKS,
    *RERATING_CHECKS,
    *ROLL_UP_CHECKS,
    *LOT_CHECKS,
    *PAYMENT_CHECKS,
    *DOCUMENT_CHECKS,
)

__all__ = [
    "CHECKS",
    "EVERYTHING",
    "Books",
    "Check",
    "Outcome",
    "Report",
    "Span",
    "admission_check",
    "estimates_check",
    "journal_check",
    "open_months",
    "prove_due_months",
    "proven_check",
    "proven_months",
    "run_checks",
    "span_of",
]

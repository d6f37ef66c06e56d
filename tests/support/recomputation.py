"""What a customer does with docs/recompute_bill.py: an invoice, its usage and the public price list, and no more."""

import json
import subprocess
import sys
from pathlib import Path

from billing.catalog.price_history import list_price_versions
from billing.documents.closed_months import find_month
from billing.documents.periods import parse_month
from billing.documents.usage_export import export_usage
from billing.models import Document
from pages.documents.machine import document_body

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "recompute_bill.py"


def recompute(folder: Path, document: Document, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the customer's script on an invoice, with replacements made in its files first."""
    assert document.closed_month is not None
    posted, _ = find_month(document.organization, parse_month(document.closed_month.month))
    texts = {
        "invoice.json": json.dumps(document_body(document)),
        "usage.csv": b"".join(export_usage(document.organization, posted)).decode(),
        "prices.json": json.dumps({"data": list_price_versions()}),
    }
    for old, new in changes.items():
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    command = [sys.executable, str(SCRIPT), *(str(folder / name) for name in texts)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_invoices_recompute(folder: Path) -> int:
    """Recompute every invoice that there is, and return how many those were."""
    invoices = list(Document.objects.filter(kind=Document.Kind.INVOICE).select_related("organization", "closed_month"))
    for invoice in invoices:
        answer = recompute(folder, invoice)
        assert (answer.stderr, answer.returncode) == ("", 0), f"{invoice.label}: {answer.stderr}"
    return len(invoices)

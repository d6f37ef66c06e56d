"""Closed documents. Rows are written once and never edited (see the migration); what corrects one is another one.

A closed month says which ledger transactions of an organization its documents are about. Documents are numbered
without gaps in a series for each kind. Amounts of lines are nano-dollars; a document is rounded to cents once, at its
net. A credit note's amounts are above zero and are given back.
"""

from django.db import models
from django.db.models import F, Q

from accounts.models import Organization
from billing.models.ledger import LedgerTransaction


class DocumentSeries(models.Model):
    """Counts one kind of document. Its row is locked only in the transaction that writes the document."""

    name = models.CharField(max_length=20, unique=True)
    last_number = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "document series"

    def __str__(self) -> str:
        return f"{self.name}: {self.last_number}"


class ClosedMonth(models.Model):
    """The transactions of an organization that a month's documents are about: after_id < id <= last_id.

    `month` is written "2026-11". An organization's closed months follow each other without a gap. `finished_at` is
    empty until the documents are written.
    """

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="closed_months")
    month = models.CharField(max_length=7)
    after_transaction_id = models.BigIntegerField()
    last_transaction_id = models.BigIntegerField()
    opening_nanos = models.BigIntegerField()
    closing_nanos = models.BigIntegerField()
    closed_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["organization", "-month"]
        indexes = [models.Index(fields=["month"], name="closed_month_by_month")]
        constraints = [
            models.UniqueConstraint(fields=["organization", "month"], name="closed_month_once"),
            models.CheckConstraint(
                condition=Q(last_transaction_id__gte=F("after_transaction_id")), name="closed_month_in_order"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization} · {self.month}"


class Document(models.Model):
    """An invoice or a credit note of a closed month, or the receipt of a payment. Immutable.

    net_nanos = charges_nanos - promotional_nanos is the sum of the lines; net_cents is it rounded half up, tax_cents
    is computed once from net_cents, gross_cents is their sum. `seller` and `customer` are as they were at issue.
    """

    class Kind(models.TextChoices):
        INVOICE = "invoice", "Invoice"
        CREDIT_NOTE = "credit_note", "Credit note"
        PAYMENT_RECEIPT = "payment_receipt", "Payment receipt"

    PREFIXES = {Kind.INVOICE: "INV", Kind.CREDIT_NOTE: "CN", Kind.PAYMENT_RECEIPT: "RCT"}

    kind = models.CharField(max_length=20, choices=Kind.choices)
    number = models.PositiveBigIntegerField()
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="documents")
    closed_month = models.ForeignKey(ClosedMonth, models.PROTECT, null=True, related_name="documents")
    corrects = models.ForeignKey("self", models.PROTECT, null=True, related_name="credit_notes")
    payment = models.OneToOneField(
        LedgerTransaction, models.PROTECT, null=True, related_name="receipt", help_text="What a receipt is for."
    )
    issued_at = models.DateTimeField()
    seller = models.JSONField()
    customer = models.JSONField()
    charges_nanos = models.BigIntegerField()
    promotional_nanos = models.BigIntegerField(default=0)
    net_nanos = models.BigIntegerField()
    tax_rate_ppm = models.PositiveIntegerField(default=0)
    tax_note = models.CharField(max_length=200, blank=True)
    net_cents = models.PositiveBigIntegerField()
    tax_cents = models.PositiveBigIntegerField(default=0)
    gross_cents = models.PositiveBigIntegerField()
    tax_transaction = models.OneToOneField(
        LedgerTransaction, models.PROTECT, null=True, related_name="taxed_document", help_text="Empty without tax."
    )

    class Meta:
        ordering = ["-issued_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "-issued_at"], name="document_by_organization"),
            models.Index(fields=["number"], name="document_by_number"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["kind", "number"], name="document_number_once"),
            models.UniqueConstraint(
                fields=["closed_month"],
                condition=Q(corrects=None, closed_month__isnull=False),
                name="document_of_month_once",
            ),
            models.UniqueConstraint(
                fields=["closed_month", "corrects"],
                condition=Q(corrects__isnull=False),
                name="credit_note_of_month_once",
            ),
            models.CheckConstraint(
                condition=Q(gross_cents=F("net_cents") + F("tax_cents")), name="document_net_and_tax_are_gross"
            ),
            models.CheckConstraint(
                condition=Q(net_nanos=F("charges_nanos") - F("promotional_nanos"), net_nanos__gte=0),
                name="document_net_is_what_was_charged",
            ),
            models.CheckConstraint(
                condition=Q(kind="payment_receipt", payment__isnull=False, closed_month=None)
                | (~Q(kind="payment_receipt") & Q(payment=None, closed_month__isnull=False)),
                name="document_is_of_a_month_or_a_payment",
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """The number as people read it: INV-000042."""
        return f"{self.PREFIXES[self.Kind(self.kind)]}-{self.number:06d}"


class DocumentLine(models.Model):
    """One line. The amounts of a document's lines sum to its `net_nanos`, promotional credit among them as a discount.

    `quantity` counts tokens, images or searches, and `picos_per_unit` is the published price of one; both are empty
    where the line is no component. `is_late` marks what belongs to an earlier month than the document.
    """

    class Kind(models.TextChoices):
        USAGE = "usage", "Usage"
        ROUNDING = "rounding", "Minimum charges and rounding"
        REFUND = "refund", "Refunds"
        CORRECTION = "correction", "Corrections"
        RERATING = "rerating", "Re-rating"
        ADJUSTMENT = "adjustment", "Adjustment"
        PROMOTIONAL = "promotional", "Promotional credit"
        PAYMENT = "payment", "Payment"

    document = models.ForeignKey(Document, models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind.choices)
    description = models.CharField(max_length=500, blank=True)
    model_id = models.CharField(max_length=100, blank=True)
    component = models.CharField(max_length=20, blank=True)
    price_version_id = models.BigIntegerField(null=True)
    prompt_tokens_from = models.PositiveIntegerField(default=0)
    factor_ppm = models.BigIntegerField(null=True)
    picos_per_unit = models.BigIntegerField(null=True)
    quantity = models.BigIntegerField(null=True)
    count = models.BigIntegerField(default=0, help_text="Requests, or transactions where they are no usage.")
    is_late = models.BooleanField(default=False)
    amount_nanos = models.BigIntegerField()

    class Meta:
        ordering = ["document", "position"]
        constraints = [models.UniqueConstraint(fields=["document", "position"], name="document_line_position_once")]

    def __str__(self) -> str:
        return f"{self.document_id}.{self.position}"

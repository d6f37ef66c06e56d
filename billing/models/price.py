"""Prices: dated rows, never edited. A mistake is corrected by a new version."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.catalog import LanguageModel, Upstream
from billing.pricing.cost import FACTOR_ONE_PPM, MAX_FACTOR_PPM, MAX_PICOS_PER_UNIT

# What is true of a draft alone: nobody has approved or discarded it.
UNDECIDED = {"approved_at": None, "discarded_at": None}


class PriceVersion(models.Model):
    """What a language model costs from `effective_from` on, until a later approved version.

    Without `upstream` it is the price that organizations pay; with it, what that provider charges us.
    """

    language_model = models.ForeignKey(LanguageModel, models.CASCADE, related_name="price_versions")
    upstream = models.ForeignKey(Upstream, models.CASCADE, null=True, blank=True, related_name="price_versions")
    effective_from = models.DateTimeField()
    minimum_charge_nanos = models.PositiveBigIntegerField(default=0)
    source = models.CharField(max_length=300, help_text="Where the prices were taken from.")
    source_date = models.DateField(help_text="When they were taken.")
    created_by = models.CharField(max_length=254, help_text="Who drafted it, as written down then.")
    drafted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The account of who drafted it; empty: a file or a job did.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    approved_by = models.CharField(max_length=254, blank=True, help_text="Who approved it, as written down then.")
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The account of who approved it.",
    )
    approved_at = models.DateTimeField(null=True, blank=True)
    discarded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The account of who discarded the draft.",
    )
    discarded_at = models.DateTimeField(null=True, blank=True)
    # Gateways and workers that do not know this column yet go on drafting.
    discard_reason = models.CharField(max_length=500, blank=True, db_default="")

    class Meta:
        ordering = ["language_model", "-effective_from", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(approved_at=None, approved_by="") | (Q(approved_at__isnull=False) & ~Q(approved_by="")),
                name="price_version_approval_names_a_person",
            ),
            models.CheckConstraint(
                condition=Q(decided_by=None) | Q(drafted_by=None) | ~Q(decided_by=F("drafted_by")),
                name="price_version_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(discarded_at=None, discarded_by=None, discard_reason="")
                | (Q(approved_at=None, discarded_at__isnull=False, discarded_by__isnull=False) & ~Q(discard_reason="")),
                name="price_version_discarded_by_a_person",
            ),
        ]

    def __str__(self) -> str:
        seller = self.upstream.name if self.upstream else "sale"
        return f"{self.language_model} ({seller}, from {self.effective_from:%Y-%m-%d})"

    @property
    def is_draft(self) -> bool:
        """Say whether it waits for somebody to approve or to discard it."""
        return all(getattr(self, column) is value for column, value in UNDECIDED.items())


class PriceComponent(models.Model):
    """The price of one unit of one component, for prompts of at least `prompt_tokens_from` tokens."""

    class Component(models.TextChoices):
        INPUT = "input", "Input tokens"
        OUTPUT = "output", "Output tokens"
        CACHE_WRITE_5M = "cache_write_5m", "Cache write, 5 minutes"
        CACHE_WRITE_1H = "cache_write_1h", "Cache write, 1 hour"
        CACHE_READ = "cache_read", "Cache read"
        IMAGE = "image", "Image"
        WEB_SEARCH = "web_search", "Web search"

    price_version = models.ForeignKey(PriceVersion, models.CASCADE, related_name="components")
    component = models.CharField(max_length=20, choices=Component.choices)
    prompt_tokens_from = models.PositiveIntegerField(default=0)
    picos_per_unit = models.BigIntegerField()

    class Meta:
        ordering = ["price_version", "component", "prompt_tokens_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["price_version", "component", "prompt_tokens_from"], name="price_component_once"
            ),
            models.CheckConstraint(
                condition=Q(picos_per_unit__gte=0, picos_per_unit__lte=MAX_PICOS_PER_UNIT),
                name="price_component_in_bounds",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.component} from {self.prompt_tokens_from}: {self.picos_per_unit}"


class OrganizationPriceFactor(models.Model):
    """A dated markup or discount of an organization, in parts per million of the published price."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="price_factors")
    factor_ppm = models.PositiveBigIntegerField(help_text="1,000,000 is the published price; 900,000 is 10 % off.")
    effective_from = models.DateTimeField()
    effective_to = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=300)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["organization", "-effective_from", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(factor_ppm__lte=MAX_FACTOR_PPM), name="price_factor_in_bounds"),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: {self.factor_ppm / FACTOR_ONE_PPM:g}"

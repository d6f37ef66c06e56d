"""What is on sale and who serves it. Loaded from a file by `manage.py load_catalog`."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone


def catalog_file_field() -> "models.CharField[str, str]":
    """Return the column that says who answers for a row: what people entered, no file takes away."""
    return models.CharField(
        max_length=200,
        blank=True,
        db_default="",
        default="",
        editable=False,
        help_text="The catalog file that named it last; empty when it was entered here.",
    )


class Upstream(models.Model):
    """A provider's endpoint. Its credential is named, never stored: `credential_env` is an environment variable."""

    class Protocol(models.TextChoices):
        MESSAGES = "messages", "Anthropic Messages"
        CHAT_COMPLETIONS = "chat_completions", "OpenAI Chat Completions"

    name = models.SlugField(max_length=60, unique=True)
    protocol = models.CharField(max_length=20, choices=Protocol.choices)
    base_url = models.CharField(max_length=300)
    credential_env = models.CharField(max_length=100, blank=True)
    bills_when_cancelled = models.BooleanField(
        default=False, help_text="The provider goes on billing after its client left: streams are drained, not closed."
    )
    is_sandbox = models.BooleanField(default=False)
    is_enabled = models.BooleanField(default=True)
    profile = models.JSONField(
        default=dict, blank=True, help_text="Provider profile: extra headers, API version, fields to drop, limits."
    )
    catalog_file = catalog_file_field()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class LanguageModel(models.Model):
    """`model_id` is what clients send and get back, never an upstream's name for it."""

    model_id = models.CharField(max_length=100, unique=True)
    display_name = models.CharField(max_length=100)
    context_tokens = models.PositiveIntegerField()
    max_output_tokens = models.PositiveIntegerField()
    max_image_tokens = models.PositiveIntegerField(
        default=1600, help_text="What one image may cost at most, in input tokens: used for holds."
    )
    expansion_tokens = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="By how many tokens the provider may make a prompt longer, for one document or use of a tool.",
    )
    capabilities = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    released_at = models.DateTimeField(default=timezone.now)
    retires_at = models.DateTimeField(
        null=True, blank=True, help_text="When it will go off sale; organizations that use it are told before."
    )
    is_enabled = models.BooleanField(default=True)
    catalog_file = catalog_file_field()

    class Meta:
        ordering = ["model_id"]

    def __str__(self) -> str:
        return self.model_id


class LanguageModelAlias(models.Model):
    alias = models.CharField(max_length=100, unique=True)
    language_model = models.ForeignKey(LanguageModel, models.CASCADE, related_name="aliases")
    catalog_file = catalog_file_field()

    class Meta:
        ordering = ["alias"]
        verbose_name_plural = "language model aliases"

    def __str__(self) -> str:
        return self.alias


class Route(models.Model):
    """One way to serve a language model. Lower `position` first; equal positions share by `weight`."""

    language_model = models.ForeignKey(LanguageModel, models.CASCADE, related_name="routes")
    upstream = models.ForeignKey(Upstream, models.CASCADE, related_name="routes")
    upstream_model = models.CharField(max_length=200, help_text="The provider's own name of the model.")
    position = models.PositiveSmallIntegerField(default=1)
    weight = models.PositiveSmallIntegerField(default=100)
    is_enabled = models.BooleanField(default=True)
    catalog_file = catalog_file_field()

    class Meta:
        ordering = ["language_model", "position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["language_model", "upstream", "upstream_model"], name="route_once"),
        ]

    def __str__(self) -> str:
        return f"{self.upstream_model} at {self.upstream}"


class CatalogVersion(models.Model):
    """One row that changes with every committed change of catalog, prices or price factors.

    Triggers write it (see the migration), so that no writer can forget to. `version` is the id of the writing
    transaction: it never returns to an earlier value, but carries no order.
    """

    version = models.BigIntegerField()

    def __str__(self) -> str:
        return str(self.version)

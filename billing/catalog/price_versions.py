"""Price versions: drafted by one person, approved by another or discarded, never edited afterwards.

A price may not change the past. So a version that replaces another takes effect at its own date or at its approval,
whichever is later; only the first version of a seller may begin before it was approved, since nothing was sold by then.
Accounts tell who is who: a person with a new address is the same person.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from billing.catalog.notices import APPROVE_PERMISSION
from billing.models import LanguageModel, PriceComponent, PriceVersion, Upstream
from billing.models.price import UNDECIDED
from billing.pricing.cost import INPUT, OUTPUT, InvalidPriceError, PriceTable, Tiers

SHELL_USER = re.compile(r" \(shell:[^()]*\)$")


class ApprovalError(ValueError):
    """The version cannot be approved; the text says why."""


class SamePersonError(ApprovalError):
    """Whoever drafted a price may not approve it."""


class NotPermittedError(ApprovalError):
    """The operator's role does not approve prices."""


class AlreadyDecidedError(ApprovalError):
    """The version was approved or discarded before."""


@dataclass(frozen=True, slots=True)
class PriceDraft:
    """What a new version says. Without `upstream` it is what organizations pay; with it, what it charges us."""

    effective_from: datetime
    source: str
    source_date: date
    tiers: Mapping[str, Tiers]
    minimum_charge_nanos: int = 0
    upstream: Upstream | None = None


def draft_price(
    language_model: LanguageModel, draft: PriceDraft, *, created_by: str, drafted_by: User | None = None
) -> PriceVersion:
    """Write a new version as a draft: it prices nothing until it is approved.

    `created_by` is kept as it is; `drafted_by` is the account of the person, if one did it. Nobody is told: see
    notices.tell_who_may_approve().
    Raises InvalidPriceError when input or output has no price, or an amount is out of bounds.
    """
    _require_complete(PriceTable(0, draft.tiers, draft.minimum_charge_nanos))
    with transaction.atomic():
        version = PriceVersion.objects.create(
            language_model=language_model,
            upstream=draft.upstream,
            effective_from=draft.effective_from,
            minimum_charge_nanos=draft.minimum_charge_nanos,
            source=draft.source,
            source_date=draft.source_date,
            created_by=created_by,
            drafted_by=drafted_by,
        )
        PriceComponent.objects.bulk_create(
            PriceComponent(price_version=version, component=component, prompt_tokens_from=start, picos_per_unit=picos)
            for component, tiers in draft.tiers.items()
            for start, picos in tiers
        )
    return version


def approve_price_version(version: PriceVersion, *, approved_by: str, decided_by: User | None = None) -> PriceVersion:
    """Make a draft live, from its date or from now, and return it as it is then.

    Raises SamePersonError, NotPermittedError, AlreadyDecidedError, InvalidPriceError.
    """
    return approve_price_versions([version], approved_by=approved_by, decided_by=decided_by)[0]


def approve_price_versions(
    versions: Iterable[PriceVersion], *, approved_by: str, decided_by: User | None = None
) -> list[PriceVersion]:
    """Make drafts live together, or none of them. Several first versions of one seller keep their past dates.

    `approved_by` is kept as it is; `decided_by` is the account of the person, if one did it.
    Raises SamePersonError, NotPermittedError, AlreadyDecidedError, InvalidPriceError.
    """
    if not approved_by.strip():
        raise ApprovalError("An approval must name a person.")
    if decided_by is not None and not decided_by.has_perm(APPROVE_PERMISSION):
        raise NotPermittedError(f"The role of {decided_by} does not approve prices.")
    with transaction.atomic():
        drafts = sorted(versions, key=lambda version: version.pk)
        # Locked in id order; whether a price was replaced is judged for all before any of them counts.
        models = sorted({version.language_model_id for version in drafts})
        list(LanguageModel.objects.select_for_update().filter(pk__in=models).order_by("pk"))
        replacing = {version.pk: _has_approved(version) for version in drafts}
        return [_approve(draft, approved_by, decided_by, is_replacing=replacing[draft.pk]) for draft in drafts]


def discard_price_version(version: PriceVersion, *, by: User, reason: str) -> PriceVersion:
    """Give a draft up, and return it as it is then: it is kept, and can never be approved.

    Drafters discard their own; what others, a file or a job drafted, whoever may approve prices.
    Raises ApprovalError without a reason, NotPermittedError, AlreadyDecidedError.
    """
    if not reason.strip():
        raise ApprovalError("Whoever discards a draft says why.")
    if not may_discard(version, by):
        raise NotPermittedError(f"The role of {by} does not discard what others drafted.")
    discarded = {"discarded_by": by, "discarded_at": timezone.now(), "discard_reason": reason.strip()}
    if not drafts_that_wait().filter(pk=version.pk).update(**discarded):
        raise _already_decided(version)
    version.refresh_from_db()
    return version


def may_discard(version: PriceVersion, operator: User) -> bool:
    """Say whether the draft is the operator's own, or their role decides of others' drafts."""
    return version.drafted_by_id == operator.pk or operator.has_perm(APPROVE_PERMISSION)


def drafts_that_wait() -> QuerySet[PriceVersion]:
    """Return the versions that somebody has yet to approve or to discard."""
    return PriceVersion.objects.filter(**UNDECIDED)


def replacing_versions(versions: Iterable[PriceVersion]) -> list[PriceVersion]:
    """Return those whose seller has an approved price of the same model already."""
    return [version for version in versions if _has_approved(version)]


def stored_tiers(version: PriceVersion) -> dict[str, Tiers]:
    """Return the amounts of a version by component, as PriceTable wants them."""
    tiers: dict[str, list[tuple[int, int]]] = {}
    for row in version.components.all():
        tiers.setdefault(row.component, []).append((row.prompt_tokens_from, row.picos_per_unit))
    return {component: tuple(sorted(rows)) for component, rows in tiers.items()}


def price_table(version: PriceVersion) -> PriceTable:
    """Return a version ready to price with. Its components may be prefetched."""
    return PriceTable(version.pk, stored_tiers(version), version.minimum_charge_nanos)


def _approve(draft: PriceVersion, approved_by: str, decided_by: User | None, *, is_replacing: bool) -> PriceVersion:
    if _is_same_person(draft, approved_by, decided_by):
        raise SamePersonError(f"{draft}: {approved_by} drafted this price; somebody else approves it.")
    _require_complete(price_table(draft))
    now = timezone.now()
    effective_from = max(draft.effective_from, now) if is_replacing else draft.effective_from
    updated = (
        drafts_that_wait()
        .filter(pk=draft.pk)
        .update(approved_by=approved_by, decided_by=decided_by, approved_at=now, effective_from=effective_from)
    )
    if not updated:
        raise _already_decided(draft)
    draft.refresh_from_db()
    return draft


def _already_decided(draft: PriceVersion) -> AlreadyDecidedError:
    draft.refresh_from_db()
    return AlreadyDecidedError(f"{draft} was {'discarded' if draft.discarded_at else 'approved'} before.")


def _has_approved(draft: PriceVersion) -> bool:
    return PriceVersion.objects.filter(
        language_model=draft.language_model_id, upstream=draft.upstream_id, approved_at__isnull=False
    ).exists()


def _require_complete(table: PriceTable) -> None:
    for component in (INPUT, OUTPUT):
        if not table.has_price(component):
            raise InvalidPriceError(f"{component} has no price.")


def _is_same_person(draft: PriceVersion, approved_by: str, decided_by: User | None) -> bool:
    """By their accounts where both have one. A name alone says less: addresses change."""
    if draft.drafted_by_id is not None and decided_by is not None:
        return draft.drafted_by_id == decided_by.pk
    return _person(approved_by) == _person(draft.created_by)


def _person(name: str) -> str:
    """Return whom a name means: a command's record has the user of its shell behind it."""
    return " ".join(SHELL_USER.sub("", name).split()).casefold()

"""Brings the database in line with a catalog file, in one transaction, and says what it changed.

Loading the same file twice changes nothing the second time. What a file named and this one does not is disabled, never
deleted, since usage refers to it; only aliases are deleted, being nothing but names. What people entered stays theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User
from billing.catalog.file import SALE, Catalog, InvalidCatalogError, ModelEntry, PriceEntry, UpstreamEntry
from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import (
    ApprovalError,
    PriceDraft,
    approve_price_versions,
    draft_price,
    price_table,
    replacing_versions,
    stored_tiers,
)
from billing.catalog.serving import lost_since, servable_models
from billing.models import LanguageModel, LanguageModelAlias, PriceVersion, Route, Upstream
from billing.pricing.cost import describe_prices

CREATED_BY_FILE = "catalog file"
LOAD_LOCK = 7_303_014  # Two loads at once would both add the same prices.

CatalogRow = Upstream | LanguageModel | LanguageModelAlias | Route


@dataclass(frozen=True, slots=True)
class _Drafter:
    name: str
    account: User | None = None


@dataclass(slots=True)
class CatalogChanges:
    """What a load changed, or would change: one line each, in the order of the file. `drafts` has old ones too."""

    lines: list[str] = field(default_factory=list)
    drafts: list[PriceVersion] = field(default_factory=list)
    new_drafts: list[PriceVersion] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines)


@dataclass(frozen=True, slots=True)
class FileClaim:
    """Which rows a file answers for: what it names from now on, and what it or another file named before.

    A row of a person's own is nobody's until a file names it. One that a file lets go of is a person's again, so that
    whoever puts it on sale once more need not do so after each load.
    """

    file_name: str
    is_alone: bool  # No other file's rows are left on sale.

    def covers(self, row: CatalogRow) -> bool:
        return bool(row.catalog_file) and (self.is_alone or row.catalog_file == self.file_name)


def load_catalog(
    catalog: Catalog,
    *,
    actor: str = "",
    account: User | None = None,
    approve: bool = False,
    may_replace_alone: bool = True,
    keeps_other_files: bool = False,
    dry_run: bool = False,
) -> CatalogChanges:
    """Write the catalog and return what changed. With `dry_run` the same work is done and rolled back.

    What other files named goes off sale, as what this file no longer names does, but with `keeps_other_files` it stays.

    New prices are drafts by `actor`, whose account is `account`; who may approve them gets mail. With `approve` they
    are live at once: drafted by the file, approved by `actor`, who answers for it; without `may_replace_alone` one that
    replaces a price needs somebody else's approval.
    Raises price_versions.ApprovalError then, and when `actor` drafted one of them in an earlier load, and
    InvalidCatalogError for a catalog without models: a file that was cut short would take everything off sale.
    """
    if not catalog.models:
        raise InvalidCatalogError(["model: is missing: a catalog must have at least one [[model]]."])
    changes = CatalogChanges()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOAD_LOCK])
        served = servable_models()
        claim = FileClaim(catalog.file_name, is_alone=not keeps_other_files)
        upstreams = _load_upstreams(catalog.upstreams, claim, changes)
        drafter = _Drafter(CREATED_BY_FILE) if approve else _Drafter(actor or CREATED_BY_FILE, account)
        language_models = _load_models(catalog.models, claim, changes)
        _load_aliases(catalog.models, language_models, claim, changes)
        for entry in catalog.models:
            _load_routes(entry, language_models[entry.id], upstreams, claim, changes)
            _load_prices(entry, language_models[entry.id], upstreams, drafter, changes)
        if approve and changes.drafts:
            if not may_replace_alone:
                _require_second_person(changes.drafts)
            for version in approve_price_versions(changes.drafts, approved_by=actor, decided_by=account):
                changes.lines.append(f"approved by {actor}: {describe_version(version)}")
        else:
            tell_who_may_approve(changes.new_drafts)
        changes.lines += [f"could be served and can no longer: {lost}" for lost in lost_since(served)]
        if dry_run:
            transaction.set_rollback(True)
    return changes


def _require_second_person(drafts: list[PriceVersion]) -> None:
    """Raise ApprovalError when the file, whom nobody else answers for, would replace a price that is in force."""
    replacing = replacing_versions(draft for draft in drafts if draft.created_by == CREATED_BY_FILE)
    if replacing:
        raise ApprovalError(
            f"{describe_version(replacing[0])}: it replaces a price, so two people decide."
            " Load the file without --approve; somebody else approves its drafts with manage.py approve_prices."
        )


def load_prices(catalog: Catalog, *, actor: str, account: User | None = None, dry_run: bool = False) -> CatalogChanges:
    """Draft what the file's prices say otherwise than ours: the drift of a list, for a second person to approve.

    Of models and upstreams that are here already, and nothing but prices: the rest of the file is not looked at.
    """
    changes = CatalogChanges()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOAD_LOCK])
        upstreams = {row.name: row for row in Upstream.objects.all()}
        language_models = {row.model_id: row for row in LanguageModel.objects.all()}
        for entry in catalog.models:
            if entry.id not in language_models:
                changes.lines.append(f"model {entry.id}: is not in the catalog, left out")
                continue
            known = tuple(price for price in entry.prices if price.seller == SALE or price.seller in upstreams)
            _load_prices(
                replace(entry, prices=known), language_models[entry.id], upstreams, _Drafter(actor, account), changes
            )
        tell_who_may_approve(changes.new_drafts)
        if dry_run:
            transaction.set_rollback(True)
    return changes


def describe_version(version: PriceVersion) -> str:
    """Return a price version in one line, as people read it."""
    seller = f"upstream cost of {version.upstream.name}" if version.upstream else "sale price"
    return (
        f"{seller} of {version.language_model.model_id} from {version.effective_from:%Y-%m-%d %H:%M} UTC: "
        f"{describe_prices(price_table(version))}"
    )


def _load_upstreams(
    entries: tuple[UpstreamEntry, ...], claim: FileClaim, changes: CatalogChanges
) -> dict[str, Upstream]:
    rows = {row.name: row for row in Upstream.objects.all()}
    for entry in entries:
        row = rows.setdefault(entry.name, Upstream(name=entry.name))
        values = {
            "protocol": entry.protocol,
            "base_url": entry.base_url,
            "credential_env": entry.credential_env,
            "bills_when_cancelled": entry.bills_when_cancelled,
            "is_sandbox": entry.is_sandbox,
            "is_enabled": entry.is_enabled,
            "profile": entry.profile,
        }
        _save(row, values, f"upstream {entry.name}", claim, changes)
    _disable_others(rows, {entry.name for entry in entries}, "upstream", claim, changes)
    return rows


def _load_models(
    entries: tuple[ModelEntry, ...], claim: FileClaim, changes: CatalogChanges
) -> dict[str, LanguageModel]:
    rows = {row.model_id: row for row in LanguageModel.objects.all()}
    for entry in entries:
        row = rows.setdefault(entry.id, LanguageModel(model_id=entry.id))
        values = {
            "display_name": entry.display_name,
            "context_tokens": entry.context_tokens,
            "max_output_tokens": entry.max_output_tokens,
            "max_image_tokens": entry.max_image_tokens,
            "expansion_tokens": entry.expansion_tokens,
            "capabilities": list(entry.capabilities),
            "released_at": entry.released,
            "retires_at": entry.retires,
            "is_enabled": entry.is_enabled,
        }
        _save(row, values, f"model {entry.id}", claim, changes)
    _disable_others(rows, {entry.id for entry in entries}, "model", claim, changes)
    return rows


def _load_aliases(
    entries: tuple[ModelEntry, ...],
    language_models: Mapping[str, LanguageModel],
    claim: FileClaim,
    changes: CatalogChanges,
) -> None:
    wanted = {alias: language_models[entry.id] for entry in entries for alias in entry.aliases}
    rows = {row.alias: row for row in LanguageModelAlias.objects.select_related("language_model")}
    for alias in sorted(name for name in rows.keys() - wanted.keys() if claim.covers(rows[name])):
        changes.lines.append(f"alias {alias}: deleted, was {rows[alias].language_model.model_id}")
        rows[alias].delete()
    for alias, language_model in wanted.items():
        row = rows.get(alias)
        if row is None:
            row = LanguageModelAlias(alias=alias)
            changes.lines.append(f"alias {alias}: new, for {language_model.model_id}")
        elif row.language_model_id != language_model.pk:
            changes.lines.append(f"alias {alias}: {row.language_model.model_id} -> {language_model.model_id}")
        elif row.catalog_file == claim.file_name:
            continue
        row.language_model, row.catalog_file = language_model, claim.file_name
        row.save()


def _load_routes(
    entry: ModelEntry,
    language_model: LanguageModel,
    upstreams: Mapping[str, Upstream],
    claim: FileClaim,
    changes: CatalogChanges,
) -> None:
    rows = {
        f"{entry.id} -> {row.upstream.name}:{row.upstream_model}": row
        for row in Route.objects.filter(language_model=language_model).select_related("upstream")
    }
    named = set()
    for route in entry.routes:
        name = f"{entry.id} -> {route.upstream}:{route.upstream_model}"
        named.add(name)
        upstream = upstreams[route.upstream]
        new = Route(language_model=language_model, upstream=upstream, upstream_model=route.upstream_model)
        values = {"position": route.position, "weight": route.weight, "is_enabled": True}
        _save(rows.setdefault(name, new), values, f"route {name}", claim, changes)
    _disable_others(rows, named, "route", claim, changes)


def _load_prices(
    entry: ModelEntry,
    language_model: LanguageModel,
    upstreams: Mapping[str, Upstream],
    drafter: _Drafter,
    changes: CatalogChanges,
) -> None:
    now = timezone.now()
    stored: dict[str, list[PriceVersion]] = {}
    # What was discarded and is still in the file is drafted once more: the file is what its owners want.
    versions = language_model.price_versions.filter(discarded_at=None).select_related("upstream", "language_model")
    for version in versions.prefetch_related("components").order_by("effective_from", "pk"):
        stored.setdefault(version.upstream.name if version.upstream else SALE, []).append(version)
    for price in entry.prices:
        candidates = stored.get(price.seller, [])
        match = _find_stored(price, candidates, now)
        if match is None:
            draft = PriceDraft(
                effective_from=price.effective_from or now,
                source=price.source,
                source_date=price.source_date,
                tiers=price.tiers,
                minimum_charge_nanos=price.minimum_charge_nanos,
                upstream=None if price.seller == SALE else upstreams[price.seller],
            )
            match = draft_price(language_model, draft, created_by=drafter.name, drafted_by=drafter.account)
            changes.new_drafts.append(match)
            changes.lines.append(f"new draft {match.pk}: {describe_version(match)}")
        else:
            candidates.remove(match)
        if match.approved_at is None:
            changes.drafts.append(match)


def _find_stored(price: PriceEntry, candidates: list[PriceVersion], now: datetime) -> PriceVersion | None:
    """Return the stored version that says what the file says, if there is one.

    A price with a date is the version of that date, also when approval came later and moved it. One without a date
    means "from now on": it is there already when the price in force now, or a newer draft, has the same amounts.
    """
    same = [version for version in candidates if _says_the_same(version, price)]
    if price.effective_from is not None:
        for version in same:
            was_moved = version.effective_from == version.approved_at
            if version.effective_from == price.effective_from or (
                was_moved and version.effective_from > price.effective_from
            ):
                return version
        return None
    in_force = [version for version in candidates if version.approved_at and version.effective_from <= now]
    if in_force and in_force[-1] in same:
        return in_force[-1]
    newest_approved = in_force[-1].pk if in_force else 0
    return next((version for version in same if version.approved_at is None and version.pk > newest_approved), None)


def _says_the_same(version: PriceVersion, price: PriceEntry) -> bool:
    return version.minimum_charge_nanos == price.minimum_charge_nanos and stored_tiers(version) == price.tiers


def _save(
    row: Upstream | LanguageModel | Route,
    values: Mapping[str, Any],
    name: str,
    claim: FileClaim,
    changes: CatalogChanges,
) -> None:
    is_new = row.pk is None
    differences = [
        f"{attribute} {getattr(row, attribute)!r} -> {value!r}"
        for attribute, value in values.items()
        if getattr(row, attribute) != value
    ]
    if not is_new and not row.catalog_file:
        differences.append("was entered in the admin, follows the file from now on")
    if not is_new and not differences and row.catalog_file == claim.file_name:
        return
    for attribute, value in values.items():
        setattr(row, attribute, value)
    row.catalog_file = claim.file_name
    row.save()
    if is_new or differences:
        changes.lines.append(f"{name}: new" if is_new else f"{name}: {', '.join(differences)}")


def _disable_others(
    rows: Mapping[str, Upstream] | Mapping[str, LanguageModel] | Mapping[str, Route],
    named: set[str],
    kind: str,
    claim: FileClaim,
    changes: CatalogChanges,
) -> None:
    for name, row in rows.items():
        if name in named or not claim.covers(row):
            continue
        if row.is_enabled:
            changes.lines.append(f"{kind} {name}: disabled, the file does not name it")
        row.is_enabled, row.catalog_file = False, ""
        row.save(update_fields=["is_enabled", "catalog_file"])

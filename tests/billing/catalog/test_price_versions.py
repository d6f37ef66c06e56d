"""Price versions: drafted, approved by somebody else, never edited, never changing the past."""

from datetime import UTC, date, datetime, timedelta
from importlib import import_module

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts.models import User
from accounts.staff_roles import StaffRole
from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import (
    AlreadyDecidedError,
    ApprovalError,
    NotPermittedError,
    PriceDraft,
    SamePersonError,
    approve_price_version,
    approve_price_versions,
    discard_price_version,
    draft_price,
    drafts_that_wait,
    price_table,
)
from billing.models import LanguageModel, OutgoingMail, PriceComponent, PriceVersion, Upstream
from billing.pricing.cost import InvalidPriceError, Tiers
from tests.support.operators import make_operator

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
ALICE, BOB = "alice@example.org", "bob@example.org"


@pytest.fixture
def language_model() -> LanguageModel:
    return LanguageModel.objects.create(model_id="acme/large", context_tokens=1000, max_output_tokens=100)


def draft(
    language_model: LanguageModel,
    *,
    effective_from: datetime = LONG_AGO,
    input_picos: int = 3_000_000,
    upstream: Upstream | None = None,
) -> PriceVersion:
    tiers: dict[str, Tiers] = {"input": ((0, input_picos), (1000, 7)), "output": ((0, 15_000_000),)}
    new = PriceDraft(effective_from, "https://acme.example", date(2026, 1, 1), tiers, 5, upstream)
    return draft_price(language_model, new, created_by=ALICE)


def test_a_second_person_makes_a_draft_live(language_model: LanguageModel) -> None:
    version = draft(language_model)
    assert (version.approved_at, version.approved_by) == (None, "")
    approved = approve_price_version(version, approved_by=BOB)
    assert (approved.created_by, approved.approved_by, approved.effective_from) == (ALICE, BOB, LONG_AGO)
    table = price_table(approved)
    assert dict(table.tiers) == {"input": ((0, 3_000_000), (1000, 7)), "output": ((0, 15_000_000),)}
    assert (table.price_version_id, table.minimum_charge_nanos) == (version.pk, 5)


@pytest.mark.parametrize("name", [ALICE, "Alice@Example.org", "  alice@example.org "])
def test_nobody_approves_their_own_price(language_model: LanguageModel, name: str) -> None:
    version = draft(language_model)
    with pytest.raises(SamePersonError):
        approve_price_version(version, approved_by=name)
    version.refresh_from_db()
    assert version.approved_at is None


def test_a_person_with_a_new_address_is_the_same_person(language_model: LanguageModel) -> None:
    fay, finn = (make_operator(name, StaffRole.FINANCE) for name in ("fay", "finn"))
    own = drafted_by(fay, language_model)
    fay.email = "fay@new.example"
    fay.save()
    with pytest.raises(SamePersonError):
        approve_price_version(own, approved_by=str(fay), decided_by=fay)
    with pytest.raises(IntegrityError, match="by_a_second_person"), transaction.atomic():
        PriceVersion.objects.filter(pk=own.pk).update(decided_by=fay)
    finn.email = "fay@example.org"  # Her old address is his now, and he is somebody else.
    finn.save()
    approved = approve_price_version(own, approved_by=str(finn), decided_by=finn)
    assert (approved.drafted_by, approved.decided_by, approved.created_by) == (fay, finn, "fay@example.org")


def test_an_operator_whose_role_does_not_approve_prices_approves_none(language_model: LanguageModel) -> None:
    version = draft(language_model)
    otto = make_operator("otto", StaffRole.OPERATIONS)
    with pytest.raises(NotPermittedError, match="does not approve prices"):
        approve_price_version(version, approved_by=str(otto), decided_by=otto)


def test_who_may_approve_gets_one_mail_for_the_drafts_of_one_hand(language_model: LanguageModel) -> None:
    fay, finn = (make_operator(name, StaffRole.FINANCE) for name in ("fay", "finn"))
    make_operator("otto", StaffRole.OPERATIONS)
    drafts = [drafted_by(fay, language_model), drafted_by(fay, language_model)]
    for _ in range(2):
        tell_who_may_approve(drafts)
    assert [mail.user for mail in OutgoingMail.objects.all()] == [finn]
    tell_who_may_approve([draft(language_model)])  # Of a job: nobody's own.
    assert {mail.user for mail in OutgoingMail.objects.exclude(context__drafts=[row.pk for row in drafts])} == {
        fay,
        finn,
    }


def test_drafts_from_before_get_the_accounts_that_their_addresses_name(language_model: LanguageModel) -> None:
    fay = make_operator("fay", StaffRole.FINANCE)
    new = PriceDraft(LONG_AGO, "list", date(2026, 1, 1), {"input": ((0, 1),), "output": ((0, 2),)})
    names = ("Fay@example.org (shell:root)", "catalog file", "fay@example.org")
    drafts = [draft_price(language_model, new, created_by=name) for name in names]
    approve_price_version(drafts[2], approved_by=BOB)
    migration = import_module("billing.migrations.0030_prices_by_two_accounts")
    with connection.cursor() as cursor:
        cursor.execute(migration.NAME_ACCOUNTS)
    drafters = [PriceVersion.objects.get(pk=version.pk).drafted_by for version in drafts]
    assert drafters == [fay, None, None], "What is approved is not edited."


def drafted_by(operator: User, language_model: LanguageModel) -> PriceVersion:
    new = PriceDraft(LONG_AGO, "list", date(2026, 1, 1), {"input": ((0, 1),), "output": ((0, 2),)})
    return draft_price(language_model, new, created_by=str(operator), drafted_by=operator)


def test_an_approval_names_a_person_and_happens_once(language_model: LanguageModel) -> None:
    version = draft(language_model)
    with pytest.raises(ApprovalError):
        approve_price_version(version, approved_by=" ")
    approve_price_version(version, approved_by=BOB)
    with pytest.raises(AlreadyDecidedError):
        approve_price_version(version, approved_by="carol@example.org")
    version.refresh_from_db()
    assert version.approved_by == BOB


def test_a_price_that_replaces_another_never_changes_the_past(language_model: LanguageModel) -> None:
    approve_price_version(draft(language_model), approved_by=BOB)
    before = timezone.now()
    replacement = approve_price_version(draft(language_model, input_picos=1), approved_by=BOB)
    assert before <= replacement.effective_from == replacement.approved_at


def test_a_scheduled_price_keeps_its_date(language_model: LanguageModel) -> None:
    approve_price_version(draft(language_model), approved_by=BOB)
    next_year = timezone.now() + timedelta(days=365)
    scheduled = approve_price_version(draft(language_model, effective_from=next_year), approved_by=BOB)
    assert scheduled.effective_from == next_year


def test_first_prices_that_are_approved_together_keep_their_dates(language_model: LanguageModel) -> None:
    versions = [draft(language_model), draft(language_model, effective_from=LONG_AGO + timedelta(days=30))]
    approved = approve_price_versions(versions, approved_by=BOB)
    assert [version.effective_from for version in approved] == [LONG_AGO, LONG_AGO + timedelta(days=30)]


def test_each_seller_has_its_own_first_price(language_model: LanguageModel) -> None:
    acme = Upstream.objects.create(name="acme", protocol="messages", base_url="https://api.acme.example")
    approve_price_version(draft(language_model), approved_by=BOB)
    assert approve_price_version(draft(language_model, upstream=acme), approved_by=BOB).effective_from == LONG_AGO


def test_all_are_approved_or_none(language_model: LanguageModel) -> None:
    first, second = draft(language_model), draft(language_model)
    approve_price_version(second, approved_by=BOB)
    with pytest.raises(AlreadyDecidedError):
        approve_price_versions([first, second], approved_by=BOB)
    first.refresh_from_db()
    assert first.approved_at is None


def test_input_and_output_need_a_price(language_model: LanguageModel) -> None:
    new = PriceDraft(LONG_AGO, "https://acme.example", date(2026, 1, 1), {"input": ((0, 1),)})
    with pytest.raises(InvalidPriceError, match="output"):
        draft_price(language_model, new, created_by=ALICE)
    assert not PriceVersion.objects.exists()


def test_postgres_refuses_to_edit_an_approved_price(language_model: LanguageModel) -> None:
    version = approve_price_version(draft(language_model), approved_by=BOB)
    rows = PriceVersion.objects.filter(pk=version.pk)
    for edit in (
        lambda: rows.update(minimum_charge_nanos=0),
        lambda: rows.update(effective_from=timezone.now()),
        lambda: rows.update(approved_at=None, approved_by=""),
        lambda: PriceComponent.objects.filter(price_version=version).update(picos_per_unit=1),
        lambda: PriceComponent.objects.filter(price_version=version).delete(),
        lambda: PriceComponent.objects.create(price_version=version, component="cache_read", picos_per_unit=1),
        lambda: language_model.delete(),
    ):
        with pytest.raises(IntegrityError, match=r"immutable|decided"), transaction.atomic():
            edit()
    version.refresh_from_db()
    assert version.components.count() == 3


def test_a_discarded_draft_is_kept_and_waits_for_nobody(language_model: LanguageModel) -> None:
    fay = make_operator("fay", StaffRole.FINANCE)
    version, other = draft(language_model), draft(language_model)
    before = timezone.now()
    discarded = discard_price_version(version, by=fay, reason=" a typo ")
    assert (discarded.discarded_by, discarded.discard_reason, discarded.is_draft) == (fay, "a typo", False)
    assert discarded.discarded_at is not None and discarded.discarded_at >= before
    assert list(drafts_that_wait()) == [other]
    with pytest.raises(AlreadyDecidedError, match="was discarded before"):
        approve_price_version(version, approved_by=BOB)
    with pytest.raises(AlreadyDecidedError, match="was discarded before"):
        discard_price_version(version, by=fay, reason="again")


def test_an_approved_price_is_not_discarded(language_model: LanguageModel) -> None:
    fay = make_operator("fay", StaffRole.FINANCE)
    version = approve_price_version(draft(language_model), approved_by=BOB)
    with pytest.raises(AlreadyDecidedError, match="was approved before"):
        discard_price_version(version, by=fay, reason="a typo")
    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        PriceVersion.objects.filter(pk=version.pk).update(
            discarded_by=fay, discarded_at=timezone.now(), discard_reason="x"
        )


def test_a_draft_is_discarded_with_a_reason_by_its_drafter_or_by_who_approves(language_model: LanguageModel) -> None:
    otto, fay = make_operator("otto", StaffRole.OPERATIONS), make_operator("fay", StaffRole.FINANCE)
    own, others = drafted_by(otto, language_model), drafted_by(fay, language_model)
    with pytest.raises(ApprovalError, match="says why"):
        discard_price_version(own, by=otto, reason=" ")
    with pytest.raises(NotPermittedError):
        discard_price_version(others, by=otto, reason="a typo")
    assert discard_price_version(own, by=otto, reason="a typo").discarded_by == otto
    assert discard_price_version(others, by=fay, reason="a typo").discarded_by == fay


def test_postgres_refuses_to_change_what_was_discarded(language_model: LanguageModel) -> None:
    fay = make_operator("fay", StaffRole.FINANCE)
    version = discard_price_version(draft(language_model), by=fay, reason="a typo")
    rows = PriceVersion.objects.filter(pk=version.pk)
    for edit in (
        lambda: rows.update(discarded_by=None, discarded_at=None, discard_reason=""),
        lambda: rows.update(approved_at=timezone.now(), approved_by=BOB),
        lambda: PriceComponent.objects.create(price_version=version, component="cache_read", picos_per_unit=1),
        lambda: language_model.delete(),
    ):
        with pytest.raises(IntegrityError, match=r"immutable|decided"), transaction.atomic():
            edit()
    nameless = PriceVersion.objects.filter(pk=draft(language_model).pk)
    with pytest.raises(IntegrityError, match="discarded_by_a_person"), transaction.atomic():
        nameless.update(discarded_at=timezone.now())

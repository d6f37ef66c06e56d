"""Loading the catalog: what it writes, that a second load changes nothing, and what happens to what vanished."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.staff_roles import StaffRole
from billing.catalog.file import parse_catalog
from billing.catalog.load import CatalogChanges, load_catalog
from billing.catalog.price_versions import SamePersonError, price_table
from billing.models import LanguageModel, LanguageModelAlias, PriceComponent, PriceVersion, Route, Upstream
from tests.billing.catalog_factory import CATALOG
from tests.support.operators import make_operator

pytestmark = pytest.mark.django_db

FIRST_DAY = datetime(2026, 2, 17, tzinfo=UTC)
ALICE, BOB = "alice@example.org", "bob@example.org"


def load(text: str = CATALOG, *, approve: bool = True, actor: str = ALICE, dry_run: bool = False) -> CatalogChanges:
    catalog = parse_catalog(text, file_name="catalog.toml")
    return load_catalog(catalog, actor=actor, approve=approve, dry_run=dry_run)


def sale_prices() -> list[tuple[datetime, bool, int]]:
    """(from when, approved, pico-dollars per input token) of each sale price, oldest first."""
    versions = PriceVersion.objects.filter(upstream=None).order_by("pk")
    return [
        (version.effective_from, version.approved_at is not None, price_table(version).picos_per_unit("input"))
        for version in versions
    ]


def everything() -> dict[str, Any]:
    tables = (Upstream, LanguageModel, LanguageModelAlias, Route, PriceVersion, PriceComponent)
    return {table.__name__: list(table.objects.order_by("pk").values()) for table in tables}


def test_writes_everything() -> None:
    changes = load()
    assert [line.split(":")[0] for line in changes.lines[:7]] == [
        "upstream acme",
        "upstream sandbox",
        "model acme/large-1.0",
        "alias large-1-0",
        "alias acme/large",
        "route acme/large-1.0 -> acme",
        "route acme/large-1.0 -> sandbox",
    ]
    assert changes.lines[-1].startswith(
        "approved by alice@example.org: upstream cost of acme of acme/large-1.0 from 2026-02-17 00:00 UTC: input 3.00,"
    )
    assert Upstream.objects.get(name="acme").profile == {"api_version": "2023-06-01"}
    assert sale_prices() == [(FIRST_DAY, True, 3_000_000)]
    assert PriceVersion.objects.filter(upstream__name="acme", created_by="catalog file", approved_by=ALICE).count() == 1
    assert PriceComponent.objects.count() == 2 * 11


def test_the_same_file_twice_changes_nothing() -> None:
    load()
    before = everything()
    assert load().lines == []
    assert everything() == before


def test_drafts_wait_for_approval_and_are_not_drafted_again() -> None:
    load(approve=False)
    assert sale_prices() == [(FIRST_DAY, False, 3_000_000)]
    assert load(approve=False).lines == []
    assert len(load(approve=True, actor=BOB).lines) == 2
    assert sale_prices() == [(FIRST_DAY, True, 3_000_000)]


def test_nobody_approves_by_file_what_they_drafted_by_file() -> None:
    load(approve=False, actor=ALICE)
    before = everything()
    with pytest.raises(SamePersonError):
        load(approve=True, actor=ALICE)
    assert everything() == before


def test_a_changed_price_is_a_new_version_from_its_approval_on() -> None:
    load()
    moment = timezone.now()
    changed = CATALOG.replace('input = "3"', 'input = "4"')
    load(changed)
    (old, new) = sale_prices()
    assert old == (FIRST_DAY, True, 3_000_000)
    assert new[1:] == (True, 4_000_000)
    assert new[0] >= moment  # Its date has passed; the past stays as it was billed.
    before = everything()
    assert load(changed).lines == []
    assert everything() == before


def test_scheduled_prices_stand_beside_the_current_one() -> None:
    load()
    price = CATALOG[CATALOG.index("[[model.price]]") :].replace("2026-02-17", "2099-01-01").replace('"3"', '"2"')
    load(CATALOG + "\n" + price)
    assert sale_prices() == [(FIRST_DAY, True, 3_000_000), (datetime(2099, 1, 1, tzinfo=UTC), True, 2_000_000)]
    assert load(CATALOG + "\n" + price).lines == []


def test_a_price_without_a_date_means_from_now_on() -> None:
    undated = CATALOG.replace("effective_from = 2026-02-17\n", "")
    load(undated)
    assert load(undated).lines == []
    load(undated.replace('"3"', '"4"'))
    load(undated)
    assert [picos for _, _, picos in sale_prices()] == [3_000_000, 4_000_000, 3_000_000]
    assert load(undated).lines == []


def test_what_vanishes_is_disabled_and_comes_back() -> None:
    load()
    start, end = CATALOG.index("[[model]]"), len(CATALOG)
    other = (
        CATALOG[start:end]
        .replace("acme/large-1.0", "acme/small")
        .replace('"large-1-0", ', "")
        .replace('upstream = "acme"', 'upstream = "sandbox"')
        .replace('"sale", "acme"', '"sale"')
        .replace('"acme/large"', '"tiny"')
        .replace("position = 9", "position = 8")
    )
    sandbox_only = CATALOG[CATALOG.index('[[upstream]]\nname = "sandbox"') : start]
    changes = load(sandbox_only + other)
    assert [line for line in changes.lines if "disabled" in line or "deleted" in line] == [
        "upstream acme: disabled, the file does not name it",
        "model acme/large-1.0: disabled, the file does not name it",
        "alias acme/large: deleted, was acme/large-1.0",
        "alias large-1-0: deleted, was acme/large-1.0",
    ]
    assert list(LanguageModel.objects.filter(is_enabled=True).values_list("model_id", flat=True)) == ["acme/small"]
    assert PriceVersion.objects.filter(language_model__model_id="acme/large-1.0").count() == 2
    load()
    assert list(LanguageModel.objects.filter(is_enabled=True).values_list("model_id", flat=True)) == ["acme/large-1.0"]


def test_a_vanished_route_is_disabled_and_an_alias_moves() -> None:
    load()
    start = CATALOG.index('[[model.route]]\nupstream = "acme"')
    without = CATALOG[:start] + CATALOG[CATALOG.index('[[model.route]]\nupstream = "sandbox"') :]
    second = CATALOG[CATALOG.index("[[model]]") :].replace("acme/large-1.0", "acme/huge").replace('"large-1-0", ', "")
    load(without.replace(', "acme/large"', "") + "\n" + second)
    assert Route.objects.get(language_model__model_id="acme/large-1.0", upstream__name="acme").is_enabled is False
    assert LanguageModelAlias.objects.get(alias="acme/large").language_model.model_id == "acme/huge"


def test_dry_run_says_what_a_load_would_do_and_does_nothing() -> None:
    load()
    before = everything()
    changed = CATALOG.replace("position = 9", "position = 7").replace('input = "3"', 'input = "4"')
    would = load(changed, dry_run=True, approve=False)
    assert everything() == before
    did = load(changed, approve=False)
    assert [line.split(" of ")[0].split(" draft ")[0] for line in would.lines] == [
        line.split(" of ")[0].split(" draft ")[0] for line in did.lines
    ]
    assert would.lines[0] == "route acme/large-1.0 -> sandbox:large: position 9 -> 7"
    assert len(would.lines) == 3


# --- The commands ---------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    output = StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


@pytest.fixture
def operators(db: None) -> None:
    for name in ("alice", "bob"):
        make_operator(name, StaffRole.FINANCE)


@pytest.fixture
def catalog_file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG)
    return path


@pytest.mark.usefixtures("operators")
def test_commands_load_list_and_approve(catalog_file: Path) -> None:
    assert run("load_catalog", str(catalog_file), "--actor", ALICE).endswith(
        "2 prices wait for approval: manage.py approve_prices\n"
    )
    listed = run("approve_prices").splitlines()
    assert len(listed) == 2
    assert "(drafted by alice@example.org (shell:" in listed[0]
    first = listed[0].split(":")[0]
    with pytest.raises(CommandError, match="--actor EMAIL is missing"):
        run("approve_prices", first)
    with pytest.raises(CommandError, match="somebody else approves it"):
        run("approve_prices", first, "--actor", ALICE)
    with pytest.raises(CommandError, match="No draft has the number 999999"):
        run("approve_prices", "999999", "--actor", BOB)
    assert run("approve_prices", first, "--actor", BOB).startswith(f"approved {first}: sale price of acme/large-1.0")
    assert len(run("approve_prices").splitlines()) == 1
    run("approve_prices", "--all", "--actor", BOB)
    assert run("approve_prices") == "No price waits for approval.\n"
    assert run("load_catalog", str(catalog_file)) == "Nothing to change.\n"


@pytest.mark.usefixtures("operators")
def test_a_discarded_draft_is_listed_no_more_and_drafted_again_by_a_file_that_has_it(catalog_file: Path) -> None:
    run("load_catalog", str(catalog_file), "--actor", ALICE)
    numbers = [line.split(":")[0] for line in run("approve_prices").splitlines()]
    first, second = numbers
    with pytest.raises(CommandError, match="--actor EMAIL is missing"):
        run("discard_prices", first, "--reason", "a typo")
    with pytest.raises(CommandError, match="No draft has the number 999999"):
        run("discard_prices", first, "999999", "--reason", "a typo", "--actor", BOB)
    assert run("discard_prices", first, "--reason", "a typo", "--actor", BOB).startswith(f"discarded {first}: sale")
    assert [line.split(":")[0] for line in run("approve_prices").splitlines()] == [second]
    with pytest.raises(CommandError, match=f"No draft has the number {first}"):
        run("approve_prices", first, "--actor", BOB)
    run("approve_prices", "--all", "--actor", BOB)
    assert PriceVersion.objects.get(pk=first).approved_at is None
    assert "new draft" in run("load_catalog", str(catalog_file), "--actor", ALICE)
    assert "\n1 price waits for approval" in run("load_catalog", str(catalog_file), "--actor", ALICE)


def test_command_dry_run(catalog_file: Path) -> None:
    assert run("load_catalog", str(catalog_file), "--dry-run").splitlines()[-1].endswith("approve_prices")
    assert "Dry run: nothing was changed." in run("load_catalog", str(catalog_file), "--dry-run", "--approve")
    assert not LanguageModel.objects.exists()


def test_command_reports_every_problem_and_fails(catalog_file: Path) -> None:
    catalog_file.write_text(CATALOG.replace('input = "3"', 'input = "abc"').replace("sandbox = true", "sandbox = 1"))
    with pytest.raises(CommandError) as caught:
        run("load_catalog", str(catalog_file))
    assert str(caught.value).splitlines() == [
        "catalog.toml:14: upstream[1].sandbox: must be true or false, not a number.",
        'catalog.toml:39: model[0].price[0].input: "abc" is not a decimal number.',
        f"{catalog_file} was not loaded.",
    ]
    with pytest.raises(CommandError, match="cannot be read"):
        run("load_catalog", str(catalog_file.with_name("none.toml")))
    assert not LanguageModel.objects.exists()


@pytest.mark.usefixtures("operators")
def test_in_production_somebody_answers_for_a_price(catalog_file: Path, settings: Any) -> None:
    settings.PRODUCTION = True
    for options in ([], ["--approve"]):
        with pytest.raises(CommandError, match="--actor EMAIL is missing"):
            run("load_catalog", str(catalog_file), *options)
    run("load_catalog", str(catalog_file), "--approve", "--actor", ALICE)
    catalog_file.write_text(CATALOG.replace('input = "3"', 'input = "4"'))
    before = PriceVersion.objects.count()
    for options in ([], ["--dry-run"]):
        with pytest.raises(CommandError, match="it replaces a price, so two people decide"):
            run("load_catalog", str(catalog_file), "--approve", "--actor", ALICE, *options)
    assert PriceVersion.objects.count() == before
    run("load_catalog", str(catalog_file), "--actor", ALICE)
    run("load_catalog", str(catalog_file), "--approve", "--actor", BOB)  # Alice's draft, and Bob's approval.
    assert not PriceVersion.objects.filter(approved_at=None).exists()


def test_the_default_catalog_loads_and_loads_again() -> None:
    assert "approved by local default: sale price of anthropic/claude-sonnet-4.6" in run("load_catalog", "--approve")
    assert run("load_catalog", "--approve") == "Nothing to change.\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('refuse_feilds = ["speed"]', "refuse_feilds: no such setting."),
        ('refuse_fields = "speed"', "refuse_fields: should be a list of names."),
        ('auth = "basic"', "auth: should be one of x-api-key, bearer, none."),
    ],
)
def test_the_command_refuses_a_profile_that_the_gateway_could_not_use(tmp_path: Path, line: str, problem: str) -> None:
    """A field that is refused because it would change the price is not sold by a slip of the pen."""
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG.replace('api_version = "2023-06-01"', line))
    with pytest.raises(CommandError) as caught:
        call_command("load_catalog", str(path))
    assert f"upstream[0].profile: {problem}" in str(caught.value)
    assert not Upstream.objects.exists()


@pytest.mark.parametrize("text", ["", CATALOG[: CATALOG.index("[[model]]")]], ids=["empty", "cut short"])
def test_a_file_without_models_takes_nothing_off_sale(tmp_path: Path, text: str) -> None:
    load()
    before = everything()
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    with pytest.raises(CommandError, match="a catalog must have at least one"):
        call_command("load_catalog", str(path))
    assert everything() == before

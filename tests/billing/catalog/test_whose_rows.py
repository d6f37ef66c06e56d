"""What a load takes off sale: what files named and this one does not, and nothing of what people entered."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from billing.catalog.file import parse_catalog
from billing.catalog.load import CatalogChanges, load_catalog
from billing.models import LanguageModel, LanguageModelAlias, Route, Upstream
from tests.billing.catalog_factory import CATALOG

pytestmark = pytest.mark.django_db

OTHER = (
    CATALOG.replace("acme/large-1.0", "other/model")
    .replace('name = "acme"', 'name = "other"')
    .replace('upstream = "acme"', 'upstream = "other"')
    .replace('"sale", "acme"', '"sale", "other"')
    .replace('"large-1-0", "acme/large"', '"other"')
)


def load(text: str = CATALOG, *, file_name: str = "catalog.toml", **options: Any) -> CatalogChanges:
    return load_catalog(parse_catalog(text, file_name=file_name), actor="alice@example.org", approve=True, **options)


def on_sale() -> set[str]:
    return set(LanguageModel.objects.filter(is_enabled=True).values_list("model_id", flat=True))


def enter_by_hand() -> tuple[Upstream, LanguageModel]:
    upstream = Upstream.objects.create(name="ours", protocol="messages", base_url="http://127.0.0.1:1")
    model = LanguageModel.objects.create(model_id="ours/1", context_tokens=1, max_output_tokens=1)
    Route.objects.create(language_model=model, upstream=upstream, upstream_model="one")
    LanguageModelAlias.objects.create(alias="one", language_model=model)
    return upstream, model


def test_what_was_entered_by_hand_stays() -> None:
    load()
    upstream, model = enter_by_hand()
    sold = LanguageModel.objects.get(model_id="acme/large-1.0")
    added = Route.objects.create(language_model=sold, upstream=upstream, upstream_model="ours")
    LanguageModelAlias.objects.create(alias="mine", language_model=sold)
    for keeps in (False, True):
        assert load(keeps_other_files=keeps).lines == []
        assert on_sale() == {"acme/large-1.0", "ours/1"}
        assert Upstream.objects.get(pk=upstream.pk).is_enabled
        assert Route.objects.get(pk=added.pk).is_enabled
        assert model.routes.get().is_enabled
        assert {"mine", "one"} < set(LanguageModelAlias.objects.values_list("alias", flat=True))


def test_what_a_file_names_is_its_own_from_then_on() -> None:
    Upstream.objects.create(name="acme", protocol="messages", base_url="http://127.0.0.1:1")
    [line] = [line for line in load().lines if line.startswith("upstream acme: ")]
    assert line.endswith("was entered in the admin, follows the file from now on")
    load(OTHER)
    assert not Upstream.objects.get(name="acme").is_enabled


def test_what_a_file_let_go_of_is_not_taken_away_again() -> None:
    load()
    load(OTHER)
    assert on_sale() == {"other/model"}
    LanguageModel.objects.update(is_enabled=True)
    assert load(OTHER).lines == []
    assert on_sale() == {"acme/large-1.0", "other/model"}


@pytest.mark.parametrize("keeps", [False, True])
def test_what_other_files_named_stays_where_that_is_asked(keeps: bool) -> None:
    load(OTHER, file_name="other.toml")
    changes = load(keeps_other_files=keeps)
    assert on_sale() == ({"acme/large-1.0", "other/model"} if keeps else {"acme/large-1.0"})
    assert any("other" in line for line in changes.lines) is not keeps
    load(OTHER, keeps_other_files=keeps)  # In the file's name: what it named before goes.
    assert on_sale() == {"other/model"}


def test_the_command_asks_the_same(tmp_path: Path) -> None:
    load(OTHER, file_name="other.toml")
    path = tmp_path / "catalog.toml"
    path.write_text(CATALOG)
    call_command("load_catalog", str(path), keep_other_files=True, stdout=StringIO())
    assert on_sale() == {"acme/large-1.0", "other/model"}
    call_command("load_catalog", str(path), stdout=StringIO())
    assert on_sale() == {"acme/large-1.0"}

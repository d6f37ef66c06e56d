"""What a key is restricted to is kept as the request path compares it, whoever typed it."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from accounts.keys import change_key
from accounts.models import ApiKey
from billing.models import LanguageModel, LanguageModelAlias
from tests.support.people import People, client_of, make_person

UNREADABLE = ["anywhere", "203.0.113.0/99", "203.0.113.7/24", "::/129"]


@pytest.fixture(autouse=True)
def _models(people: People) -> None:
    large = LanguageModel.objects.create(model_id="acme/large", display_name="L", context_tokens=1, max_output_tokens=1)
    LanguageModel.objects.create(model_id="acme/small", display_name="S", context_tokens=1, max_output_tokens=1)
    LanguageModelAlias.objects.create(alias="large", language_model=large)


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


def save(people: People, operator: Client, page: str, **values: str) -> Any:
    """Save the key's form on a page, in the console as Alice or in the admin."""
    if page == "console":
        path = f"/console/alice/keys/{people.key.pk}/"
        return client_of(people.alice).post(path, {"name": "Backend", **values})
    return operator.post(f"/admin/accounts/apikey/{people.key.pk}/change/", {"name": "Backend", **values})


def restrictions(people: People) -> tuple[list[str], list[str]]:
    key = ApiKey.objects.get(pk=people.key.pk)
    return key.allowed_models, key.allowed_networks


@pytest.mark.parametrize("page", ["console", "admin"])
def test_an_alias_is_kept_as_the_id_of_its_model(people: People, operator: Client, page: str) -> None:
    response = save(people, operator, page, allowed_models="large\nacme/small\nacme/large", allowed_networks="::1")
    assert response.status_code == 302
    assert restrictions(people) == (["acme/large", "acme/small"], ["::1/128"])


@pytest.mark.parametrize("page", ["console", "admin"])
def test_a_model_that_is_no_longer_sold_may_stay(people: People, operator: Client, page: str) -> None:
    change_key(people.key, fields={"allowed_models": ["acme/gone"]})
    assert save(people, operator, page, allowed_models="acme/gone").status_code == 302
    assert restrictions(people) == (["acme/gone"], [])


@pytest.mark.parametrize("page", ["console", "admin"])
@pytest.mark.parametrize("network", UNREADABLE)
def test_a_network_that_is_none_is_told_and_not_kept(people: People, operator: Client, page: str, network: str) -> None:
    response = save(people, operator, page, allowed_networks=f"203.0.113.0/24\n{network}")
    assert f"{network} is not a network" in response.content.decode()
    assert restrictions(people) == ([], [])


@pytest.mark.parametrize("page", ["console", "admin"])
def test_a_model_that_is_not_sold_is_told_and_not_kept(people: People, operator: Client, page: str) -> None:
    assert "No such model: acme/none" in save(people, operator, page, allowed_models="acme/none").content.decode()
    assert restrictions(people) == ([], [])


@pytest.mark.parametrize("network", ["anywhere", "203.0.113.0/99", ""])
def test_no_code_of_ours_keeps_a_network_that_cannot_be_read(people: People, network: str) -> None:
    """One would make every request of the key fail."""
    with pytest.raises(ValidationError):
        change_key(people.key, fields={"allowed_networks": [network]})
    assert restrictions(people) == ([], [])

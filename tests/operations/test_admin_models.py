"""Language models in the operators' admin: they take what the catalog file takes."""

from typing import Any

import pytest
from django.test import Client

from billing.models import LanguageModel
from tests.support.people import People, client_of, make_person
from tests.support.settled_usage import sell_model

NO_INLINES = {f"{name}-{count}_FORMS": "0" for name in ("aliases", "routes") for count in ("TOTAL", "INITIAL")}


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ('{"document": 9000, "web_search": 20000}', {"document": 9_000, "web_search": 20_000}),
        ("", {}),
        ('{"pdf": 9000}', None),
        ('{"document": "many"}', None),
        ('{"document": 0}', None),
        ("[5]", None),
    ],
)
def test_what_a_provider_may_add_is_a_table_of_counts(
    operator: Client, people: People, written: str, stored: dict[str, Any] | None
) -> None:
    model = sell_model().language_model
    form = {
        "model_id": model.model_id,
        "display_name": "Large",
        "context_tokens": "200000",
        "max_output_tokens": "64000",
        "max_image_tokens": "1600",
        "expansion_tokens": written,
        "capabilities": "tools",
        "released_at_0": "2026-11-01",
        "released_at_1": "00:00:00",
        "is_enabled": "on",
        **NO_INLINES,
    }
    response = operator.post(f"/admin/billing/languagemodel/{model.pk}/change/", form)
    assert response.status_code == (200 if stored is None else 302)
    assert LanguageModel.objects.get(pk=model.pk).expansion_tokens == (stored or {})

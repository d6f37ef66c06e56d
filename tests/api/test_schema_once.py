"""The schema is made once: nobody needs a key to ask for it, and it takes a third of a second."""

import json
import threading
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from api import reference, schema_view


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with an entry for each schema that was made."""
    made: list[int] = []
    make: Any = SchemaGenerator.get_schema

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(threading.get_ident())
        return make(*args, **kwargs)

    monkeypatch.setattr(SchemaGenerator, "get_schema", counted)
    remembered: Any
    for remembered in (
        schema_view.read_schema,
        schema_view.render_schema,
        reference.read_groups,
        reference.render_calls,
    ):
        remembered.forget()
    return made


@pytest.mark.django_db
def test_many_who_ask_at_once_get_the_one_that_is_made(made: list[int]) -> None:
    answers: list[tuple[int, bytes]] = []

    def ask() -> None:
        answer = Client().get("/api/schema/", headers={"accept": "application/json"})
        answers.append((answer.status_code, answer.content))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert json.loads(answers[0][1])["openapi"]
    for path in ("/api/schema/", "/api/schema/?format=json", "/reference/api/", "/llms.txt"):
        assert Client().get(path).status_code == 200
    assert len(made) == 1


@pytest.mark.django_db
def test_it_is_yaml_or_json_as_one_asks() -> None:
    asked = {
        "/api/schema/": "application/vnd.oai.openapi",
        "/api/schema/?format=json": "application/vnd.oai.openapi+json",
        "/api/schema/?format=yaml": "application/vnd.oai.openapi",
    }
    for path, kind in asked.items():
        answer = Client().get(path)
        assert answer["content-type"].partition(";")[0] == kind
        assert answer["content-disposition"] == f'inline; filename="crossmodel.{"json" if "json" in kind else "yaml"}"'
    assert Client().get("/api/schema/", headers={"accept": "application/json"})["content-type"] == "application/json"
    assert Client().post("/api/schema/").status_code == 405

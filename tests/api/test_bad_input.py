"""What integrators get wrong and hostile tenants try: each is told what is wrong, in the one form, and does nothing."""

import bz2
import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from accounts.models import ApiKey
from api.management import ManagementView
from api.parsing import MAX_NESTING
from api.urls import urlpatterns
from gateway.server.handler import MANAGED
from tests.api.manager import Manager
from tests.support.people import People
from tests.support.roles import routes

JSON = "application/json"
WELL = b'{"name": "x"}'
DEEP = b'{"name": "x", "limits": ' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}"


@pytest.fixture
def manager(people: People) -> Manager:
    return Manager(people.organization, person=people.alice)


def send(manager: Manager, body: bytes, content_type: str) -> Any:
    client = Client(raise_request_exception=False)
    headers = {"authorization": f"Bearer {manager.secret}"}
    return client.generic("POST", "/api/v1/keys", body, content_type=content_type, headers=headers)


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"[" * 200_000, JSON, "nested deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON, "nested deeper"),
        (DEEP, JSON, "nested deeper"),
        (b'{"name": "\\ud800"}', JSON, "surrogate"),
        (b'{"\\ud800": 1}', JSON, "surrogate"),
        (b'{"name": "x", "name": "y"}', JSON, "twice"),
        (b'{"name": "x", "limits": {"requests_per_minute": NaN}}', JSON, "NaN"),
        (b'{"name": "x", "limits": {"requests_per_minute": -Infinity}}', JSON, "-Infinity"),
        (b'{"name": "x", "limits": {"requests_per_minute": ' + b"9" * 5000 + b"}}", JSON, "digits"),
        (b'{"name": "\xff"}', JSON, "not UTF-8"),
        (b"\xef\xbb\xbf" + WELL, JSON, "BOM"),
        (WELL.decode().encode("utf-16"), JSON, "not UTF-8"),
        (WELL.decode().encode("utf-16"), f"{JSON}; charset=utf-16", "in UTF-8"),
        (bz2.compress(b'{"name": "' + b"x" * 10_000_000 + b'"}'), f"{JSON}; charset=bz2", "in UTF-8"),
        (WELL, f"{JSON}; charset=nonsense", "in UTF-8"),
        (b"name=x", JSON, "no JSON"),
        (b"name=x", "application/x-www-form-urlencoded", "application/json"),
        (WELL, "text/plain", "application/json"),
        (WELL, "", "application/json"),
    ],
)
def test_bodies_that_are_none(manager: Manager, body: bytes, content_type: str, said: str) -> None:
    keys = ApiKey.objects.count()
    answer = send(manager, body, content_type)
    error = answer.json()["error"]
    wanted = (400, "parse_error") if content_type.startswith(JSON) else (415, "unsupported_media_type")
    assert (answer.status_code, error["code"]) == wanted
    assert said in error["message"]
    assert ApiKey.objects.count() == keys


@pytest.mark.parametrize(("body", "said"), [(b"[1]", "A JSON"), (b'{"name": "x", "budgets": []}', "budgets: A JSON")])
def test_a_list_in_place_of_an_object_is_told_in_plain_words(manager: Manager, body: bytes, said: str) -> None:
    answer = send(manager, body, JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameters")
    assert answer.json()["error"]["message"] == f"{said} object: names with their values, in braces."


@pytest.mark.parametrize("content_type", [JSON, "APPLICATION/JSON", f'{JSON}; charset="UTF-8"', f"{JSON};charset=utf8"])
def test_json_is_read_however_its_type_is_written(manager: Manager, content_type: str) -> None:
    name = json.dumps({"name": "ä 🎈"})
    assert send(manager, name.encode(), content_type).json()["data"]["name"] == "ä 🎈"


PATHS = [
    ("/api/v1/keys/", "/api/v1/keys"),
    ("/api/v1//keys", "/api/v1/keys"),
    ("//api/v1/keys", "/api/v1/keys"),
    ("/API/V1/Keys", "/api/v1/keys"),
    ("/api/v1/v1/keys", "/api/v1/keys"),
    ("/api/v1/api/v1/keys/apikey_1", "/api/v1/keys/apikey_1"),
    ("/api/keys", "/api/v1/keys"),
    ("/api/v1/estimate/", "/api/v1/estimate"),
    ("/api/v1/messages", "/v1/messages"),
    ("/v1/organizations/cost_report/", "/v1/organizations/cost_report"),
    ("/api/v1/organizations/cost_report", "/v1/organizations/cost_report"),
    ("/api/v1/budgets/end-users/Eve/", "/api/v1/budgets/end-users/Eve"),
    ("/api/v1/nope", None),
    ("/api/v1/keys/1/2/3", None),
    ("/api/v1/", None),
    ("/api", None),
    ("/api/v1/" + "x" * 5000, None),
    ("/v1/organizations/nope", None),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "meant"), PATHS)
def test_a_path_that_is_nearly_right_is_told_what_was_meant(path: str, meant: str | None) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        # A path of the test client that begins with two slashes would be taken for a host.
        answer = Client().generic(method, "/x", PATH_INFO=path, content_type=JSON)
        body = answer.json()
        assert (answer.status_code, body["error"]["code"]) == (404, "not_found")
        assert body["request_id"] == answer["request-id"]
        message = body["error"]["message"]
        assert message.endswith(f"Did you mean {meant}?" if meant else "/reference/api/ names every address.")
        assert len(message) < 400


def test_the_gateway_knows_what_it_does_not_serve() -> None:
    """It tells whoever asks for `/v1/keys` where keys are. `models` it has itself."""
    words = {str(pattern.pattern).partition("/")[0] for pattern in urlpatterns} | {"estimate"}
    assert words - {"models"} == MANAGED


def test_every_call_names_its_methods_and_its_parameters(manager: Manager) -> None:
    generator: Any = SchemaGenerator  # drf-spectacular has no types.
    described = generator().get_schema(request=None, public=True)["paths"]
    judged = 0
    for address, _, callback in routes():
        view = getattr(callback, "view_class", None)
        if not (isinstance(view, type) and issubclass(view, ManagementView)):
            continue
        path = address.removeprefix("/api/v1/").replace("<", "").replace(">", "")
        operations = described[address.replace("<", "{").replace(">", "}")]
        methods = {method.upper() for method in operations} & {"GET", "PUT", "PATCH", "POST", "DELETE"}
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        answer = manager.call("OPTIONS", path)
        assert (answer.status_code, answer.content, set(answer["allow"].split(", "))) == (204, b"", allowed), path
        assert "content-length" not in answer, "RFC 9110, 8.6."
        for method in {"GET", "PUT", "PATCH", "POST", "DELETE", "BREW"} - methods:
            assert manager.refusal(method, path, {}) == (405, "method_not_allowed")
        named = {
            each["name"]
            for operation in operations.values()
            for each in operation.get("parameters", ())
            if each["in"] == "query"
        }
        assert view.takes == named, path
        method = "GET" if "GET" in methods else "POST"
        assert manager.refusal(method, f"{path}?{method}=1") == (400, "invalid_parameters")
        judged += 1
    assert judged > 30


def test_a_head_is_the_answer_without_its_body(manager: Manager) -> None:
    answer = manager.call("HEAD", "keys?limit=1")
    assert (answer.status_code, answer.content, answer["content-type"]) == (200, b"", JSON)


@pytest.mark.parametrize(
    ("column", "code"), [("expires_at", "key_expired"), ("disabled_at", "key_disabled"), ("revoked_at", "key_revoked")]
)
def test_a_management_key_that_has_ended_does_nothing(manager: Manager, column: str, code: str) -> None:
    manager.do("POST", "keys", {"name": "x"}, **{"idempotency-key": "k"})
    ApiKey.objects.filter(pk=manager.key.pk).update(**{column: timezone.now()})
    for method, path in (("GET", "keys"), ("POST", "keys"), ("PUT", "budgets"), ("DELETE", "keys/1")):
        assert manager.refusal(method, path, {"name": "x"}, **{"idempotency-key": "k"}) == (401, code)


def test_what_a_typing_error_looks_for_is_not_everything(manager: Manager) -> None:
    for path in (
        "keys?include_revokd=true",
        "keys?offset=100",
        "documents?kind=",
        "documents?typ=invoice",
        "credits?x",
    ):
        assert manager.refusal("GET", path) == (400, "invalid_parameters")
    assert manager.refusal("GET", "generation") == (400, "invalid_parameters")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "meant"),
    [("/anthropic/v1/messages", "/v1/messages"), ("/proxy/api/v1/keys", "/api/v1/keys"), ("/chat/completions", None)],
)
def test_a_program_is_told_in_json_wherever_it_asks(path: str, meant: str | None) -> None:
    for headers in ({"x-api-key": "cm-a"}, {"authorization": "Bearer cm-a"}, {"content-type": JSON}):
        answer = Client().generic("POST", path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        message = answer.json()["error"]["message"]
        assert message.endswith(f"Did you mean {meant}?" if meant else "/reference/api/ names every address.")
    for headers in ({}, {"authorization": "Basic eDp5", "accept": "text/html,*/*"}):
        assert Client().get(path, headers=headers)["content-type"].startswith("text/html")

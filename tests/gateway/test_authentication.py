"""Whose key it is and what it may do: headers in every combination, changes that take effect at once everywhere."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from accounts.key_format import make_key
from accounts.keys import change_key, create_key, revoke_key
from accounts.models import Organization
from accounts.organizations import change_organization
from billing.admission.feed import publish_pending_changes
from tests.gateway.checks import assert_error, assert_nothing_is_held, assert_refused, attempts_of
from tests.gateway.wire import Connection
from tests.support.extra_gateway import ExtraGateway
from tests.support.world import HTTP, MODEL, Caller, World, body

HAIKU = "anthropic/claude-haiku-4.5"


def post(base_url: str, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return HTTP.post(base_url + "/v1/messages", headers=headers, json=body(**fields))


def post_with(world: World, caller: Caller, headers: dict[str, str]) -> httpx.Response:
    """Send headers as they stand, with the key in its place; an HTTP client would tidy them up."""
    with Connection(world.base_url) as connection:
        lines = [(name, value.format(key=caller.secret)) for name, value in headers.items()]
        connection.send("POST", "/v1/messages", lines, json.dumps(body()).encode())
        return connection.read_answer()


def assert_unauthorized(response: httpx.Response, code: str = "invalid_api_key") -> None:
    assert_error(response, 401, code)
    assert response.headers["x-should-retry"] == "false"


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "{key}"},
        {"X-API-Key": "  {key}  "},
        {"authorization": "Bearer {key}"},
        {"authorization": "bearer {key}"},
        {"authorization": "Bearer   {key}"},
        {"x-api-key": "{key}", "authorization": "Bearer something-else"},
        {"x-api-key": "", "authorization": "Bearer {key}"},
        {"x-api-key": "{key}", "authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_a_key_in_either_header(world: World, alice: Caller, headers: dict[str, str]) -> None:
    assert post_with(world, alice, headers).status_code == 200


def test_of_two_keys_x_api_key_pays(world: World, alice: Caller) -> None:
    bob = world.caller()
    response = post(world.base_url, {"authorization": f"Bearer {bob.secret}", "x-api-key": alice.secret})
    record = world.record(response)
    assert (record.organization_id, record.key_id) == (alice.organization.pk, alice.key.pk)
    assert world.records(bob) == []


def test_a_wrong_x_api_key_is_not_saved_by_a_good_bearer(world: World, alice: Caller) -> None:
    headers = {"authorization": f"Bearer {alice.secret}", "x-api-key": make_key().text}
    assert_unauthorized(post(world.base_url, headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "   "},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic {key}"},
        {"authorization": "{key}"},
        {"authorization": "Token {key}"},
        {"api-key": "{key}"},
        {"cookie": "x-api-key={key}"},
    ],
)
def test_no_key(world: World, alice: Caller, headers: dict[str, str]) -> None:
    response = post_with(world, alice, headers)
    assert_unauthorized(response, "missing_api_key")
    assert attempts_of(world, response) == []


ODD_KEYS = {
    "too short": b"cm-",
    "of another provider": b"sk-ant-api03-" + b"x" * 90,
    "non-ASCII": b"cm-abcdefgh-" + b"\xe9" * 43,
    "UTF-8": "cm-ключ".encode(),
    "quoted": b'"cm-abcdefgh-' + b"x" * 43 + b'"',
    "tab inside": b"cm-abc\tdefgh",
    "very long": b"cm-" + b"x" * 10_000,
    "percent": b"cm-%00%00",
    "SQL": b"' OR 1=1 --",
}


@pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS.keys())
@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_a_key_of_odd_bytes(world: World, alice: Caller, header: str, key: bytes) -> None:
    value = key if header == "x-api-key" else b"Bearer " + key
    with Connection(world.base_url) as connection:
        connection.send("POST", "/v1/messages", [(header, value)], b"{}")
        assert_unauthorized(connection.read_answer())


def test_a_nul_in_a_key_is_refused_as_http(world: World, alice: Caller) -> None:
    """NUL is no byte of a header: the HTTP server refuses the request before it is one."""
    with Connection(world.base_url) as connection:
        connection.send("POST", "/v1/messages", [("x-api-key", b"cm-\x00")], b"{}")
        assert connection.read_rest().startswith(b"HTTP/1.1 400 ")


def test_two_x_api_key_headers_are_no_key(world: World, alice: Caller) -> None:
    with Connection(world.base_url) as connection:
        connection.send("POST", "/v1/messages", [("x-api-key", alice.secret), ("x-api-key", alice.secret)], b"{}")
        assert_unauthorized(connection.read_answer())


def test_almost_a_key(world: World, alice: Caller) -> None:
    for text in (alice.secret[:-1], alice.secret + "x", alice.secret.swapcase(), alice.secret.replace("cm-", "")):
        assert_unauthorized(post(world.base_url, {"x-api-key": text}))


def test_who_has_no_key_learns_nothing_about_the_body(world: World, alice: Caller) -> None:
    response = HTTP.post(world.base_url + "/v1/messages", content=b"not json")
    assert_unauthorized(response, "missing_api_key")


# --- keys that died ------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_dead_on_every_gateway_at_once(
    world: World, second_gateway: ExtraGateway, alice: Caller
) -> None:
    gateways = [world.base_url, second_gateway.base_url]
    for base_url in gateways:
        assert post(base_url, alice.headers).status_code == 200
        assert HTTP.get(base_url + "/v1/models", headers=alice.headers).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    for base_url in gateways:
        response = post(base_url, alice.headers)
        assert_unauthorized(response, "key_revoked")
        assert attempts_of(world, response) == []
        assert_unauthorized(HTTP.get(base_url + "/v1/models", headers=alice.headers), "key_revoked")
        count = HTTP.post(base_url + "/v1/messages/count_tokens", headers=alice.headers, json=body())
        assert_unauthorized(count, "key_revoked")


def test_the_other_keys_of_the_organization_live_on(world: World, alice: Caller) -> None:
    other_key, secret = create_key(alice.organization, name="other", created_by=None)
    other = Caller(alice.organization, other_key, secret)
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    assert_unauthorized(world.post(alice), "key_revoked")
    assert world.post(other).status_code == 200


def test_an_expired_key(world: World) -> None:
    late = world.caller(key={"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
    response = world.post(late)
    assert_unauthorized(response, "key_expired")
    assert_refused(world, late, response, 401, "key_expired")


def test_a_key_that_expires_while_it_is_in_use(world: World) -> None:
    short = world.caller(key={"expires_at": datetime.now(UTC) + timedelta(seconds=3)})
    assert world.post(short).status_code == 200
    world.wait_until(lambda: world.post(short).status_code != 200, "the key has expired")
    assert_unauthorized(world.post(short), "key_expired")


@pytest.mark.parametrize("status", [Organization.Status.SUSPENDED, Organization.Status.CLOSED])
def test_an_organization_that_is_not_open(world: World, alice: Caller, status: str) -> None:
    assert world.post(alice).status_code == 200
    change_organization(alice.organization, fields={"status": status})
    publish_pending_changes()
    world.wait_until_quiet()
    assert_refused(world, alice, world.post(alice), 402, f"organization_{status}")
    change_organization(alice.organization, fields={"status": Organization.Status.ACTIVE})
    publish_pending_changes()
    assert world.post(alice).status_code == 200


# --- restrictions ----------------------------------------------------------------------------------------------------


def test_models_that_a_key_may_not_use(world: World) -> None:
    key = world.caller(key={"allowed_models": [HAIKU]})
    assert MODEL in assert_refused(world, key, world.post(key), 402, "model_not_allowed")
    assert world.post(key, model=HAIKU).status_code == 200
    assert world.post(key, model="claude-haiku-4-5").status_code == 200


def test_an_alias_does_not_get_around_the_restriction(world: World) -> None:
    key = world.caller(key={"allowed_models": [HAIKU]})
    assert_refused(world, key, world.post(key, model="claude-sonnet-4-6"), 402, "model_not_allowed")


@pytest.mark.parametrize(
    ("networks", "is_allowed"),
    [
        (["127.0.0.1/32"], True),
        (["10.0.0.0/8", "127.0.0.0/8"], True),
        (["10.0.0.0/8"], False),
        (["::1/128"], False),
    ],
)
def test_networks_that_a_key_may_be_used_from(world: World, networks: list[str], is_allowed: bool) -> None:
    key = world.caller(key={"allowed_networks": networks})
    if is_allowed:
        assert world.post(key).status_code == 200
    else:
        assert_refused(world, key, world.post(key), 402, "network_not_allowed")
        assert_error(world.get(key, "/v1/models"), 402, "network_not_allowed")


def test_a_forged_x_forwarded_for_opens_no_network(world: World) -> None:
    key = world.caller(key={"allowed_networks": ["10.0.0.0/8"]})
    for forged in ("10.0.0.1", "10.0.0.1, 127.0.0.1", "127.0.0.1, 10.0.0.1"):
        response = post(world.base_url, {**key.headers, "x-forwarded-for": forged, "forwarded": f"for={forged}"})
        assert_refused(world, key, response, 402, "network_not_allowed")


@pytest.mark.parametrize(
    ("tight", "code", "status"),
    [
        ({"allowed_models": [HAIKU]}, "model_not_allowed", 402),
        ({"allowed_networks": ["10.0.0.0/8"]}, "network_not_allowed", 402),
        ({"daily_budget_nanos": 1}, "key_daily_budget_exceeded", 402),
    ],
)
def test_restrictions_take_effect_at_once_both_ways(
    world: World, second_gateway: ExtraGateway, alice: Caller, tight: dict[str, Any], code: str, status: int
) -> None:
    """Also where a gateway refused before: it must not go on refusing by an old copy of the key."""
    loose = {name: getattr(alice.key, name) for name in tight}
    for base_url in (world.base_url, second_gateway.base_url):
        assert post(base_url, alice.headers).status_code == 200
    for _ in range(2):
        change_key(alice.key, fields=tight)
        publish_pending_changes()
        for base_url in (world.base_url, second_gateway.base_url):
            assert_error(post(base_url, alice.headers), status, code)
        change_key(alice.key, fields=loose)
        publish_pending_changes()
        for base_url in (world.base_url, second_gateway.base_url):
            assert post(base_url, alice.headers).status_code == 200
    world.wait_until_quiet()
    assert_nothing_is_held(world, alice)

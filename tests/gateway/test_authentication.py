"""Whose key it is and what it may do: headers in every combination, changes that take effect at once everywhere."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from accounts.key_format import hash_key, make_key
from accounts.keys import change_key, create_key, revoke_key
from accounts.models import Organization
from accounts.organizations import change_organization
from billing.admission.outbox import publish_pending_changes
from gateway import authentication
from gateway.authentication import KeyDirectory, NoKey
from gateway.database import DatabaseThreads
from gateway.errors import GatewayError
from tests.gateway.checks import assert_error, assert_nothing_is_held, assert_refused, attempts_of
from tests.gateway.wire import Connection
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import HTTP, MODEL, LiveStack, Tenant, body

HAIKU = "anthropic/claude-haiku-4.5"


def post(base_url: str, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return HTTP.post(base_url + "/v1/messages", headers=headers, json=body(**fields))


def post_with(stack: LiveStack, tenant: Tenant, headers: dict[str, str]) -> httpx.Response:
    """Send headers as they stand, with the key in its place; an HTTP client would tidy them up."""
    with Connection(stack.base_url) as connection:
        lines = [(name, value.format(key=tenant.secret)) for name, value in headers.items()]
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
def test_a_key_in_either_header(stack: LiveStack, alice: Tenant, headers: dict[str, str]) -> None:
    assert post_with(stack, alice, headers).status_code == 200


def test_of_two_keys_x_api_key_pays(stack: LiveStack, alice: Tenant) -> None:
    bob = stack.make_tenant()
    response = post(stack.base_url, {"authorization": f"Bearer {bob.secret}", "x-api-key": alice.secret})
    record = stack.record(response)
    assert (record.organization_id, record.key_id) == (alice.organization.pk, alice.key.pk)
    assert stack.records(bob) == []


def test_a_wrong_x_api_key_is_not_saved_by_a_good_bearer(stack: LiveStack, alice: Tenant) -> None:
    headers = {"authorization": f"Bearer {alice.secret}", "x-api-key": make_key().text}
    assert_unauthorized(post(stack.base_url, headers))


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
def test_no_key(stack: LiveStack, alice: Tenant, headers: dict[str, str]) -> None:
    response = post_with(stack, alice, headers)
    assert_unauthorized(response, "missing_api_key")
    assert attempts_of(stack, response) == []


def test_a_management_key_is_told_what_it_is(stack: LiveStack, alice: Tenant) -> None:
    _, secret = create_key(alice.organization, name="Terraform", created_by=None, is_management=True)
    for _ in range(2):  # Looked up, then remembered.
        response = post_with(stack, alice, {"x-api-key": secret})
        assert_unauthorized(response)
        assert "This is a management key, which calls no model." in response.text


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
def test_a_key_of_odd_bytes(stack: LiveStack, alice: Tenant, header: str, key: bytes) -> None:
    value = key if header == "x-api-key" else b"Bearer " + key
    with Connection(stack.base_url) as connection:
        connection.send("POST", "/v1/messages", [(header, value)], b"{}")
        assert_unauthorized(connection.read_answer())


def test_a_nul_in_a_key_is_refused_as_http(stack: LiveStack, alice: Tenant) -> None:
    """NUL is no byte of a header: the HTTP server refuses the request before it is one."""
    with Connection(stack.base_url) as connection:
        connection.send("POST", "/v1/messages", [("x-api-key", b"cm-\x00")], b"{}")
        assert connection.read_rest().startswith(b"HTTP/1.1 400 ")


def test_two_x_api_key_headers_are_no_key(stack: LiveStack, alice: Tenant) -> None:
    with Connection(stack.base_url) as connection:
        connection.send("POST", "/v1/messages", [("x-api-key", alice.secret), ("x-api-key", alice.secret)], b"{}")
        assert_unauthorized(connection.read_answer())


def test_almost_a_key(stack: LiveStack, alice: Tenant) -> None:
    for text in (alice.secret[:-1], alice.secret + "x", alice.secret.swapcase(), alice.secret.replace("cm-", "")):
        assert_unauthorized(post(stack.base_url, {"x-api-key": text}))


def test_who_has_no_key_learns_nothing_about_the_body(stack: LiveStack, alice: Tenant) -> None:
    response = HTTP.post(stack.base_url + "/v1/messages", content=b"not json")
    assert_unauthorized(response, "missing_api_key")


# --- keys that died ------------------------------------------------------------------------------------------------


class CountedThreads(DatabaseThreads):
    lookups = 0

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.lookups += 1
        return await super().run(function, *args, **kwargs)


def test_a_flood_of_made_up_keys_keeps_nobody_waiting(stack: LiveStack, alice: Tenant) -> None:
    """Each had a query of its own on four threads: 150 strangers made a new key wait for 3 s, and idempotency."""
    threads = CountedThreads()

    async def ask() -> tuple[Sequence[object], int]:
        keys = KeyDirectory(threads)
        texts = [make_key().text for _ in range(600)]
        made_up = [asyncio.ensure_future(keys.identify({"HTTP_X_API_KEY": text})) for text in texts]
        await asyncio.sleep(0)
        identity, _ = await keys.identify({"HTTP_X_API_KEY": alice.secret})
        refused = await asyncio.gather(*made_up, return_exceptions=True)
        again = await keys.reload(hash_key(alice.secret))
        assert again == identity
        return refused, identity.key_id

    refused, key_id = asyncio.run(ask())
    threads.close()
    assert key_id == alice.key.pk
    assert {error.code for error in refused if isinstance(error, GatewayError)} == {"invalid_api_key"}
    assert len(refused) == 600
    assert threads.lookups <= 4


async def test_one_key_that_cannot_be_read_keeps_no_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks meanwhile is answered too, and so is whoever asks for the same key again."""
    bad, good, late = (hash_key(make_key().text) for _ in range(3))

    def find_keys(digests: list[bytes]) -> dict[bytes, NoKey]:
        if bad in digests:
            raise ValueError("this row is none")
        return {}

    monkeypatch.setattr(authentication, "_find_keys", find_keys)
    threads = DatabaseThreads()
    keys = KeyDirectory(threads)
    asked = [asyncio.ensure_future(keys.reload(digest)) for digest in (bad, good)]
    await asyncio.sleep(0)
    asked.append(asyncio.ensure_future(keys.reload(late)))
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*asked, return_exceptions=True)
        again = await asyncio.gather(keys.reload(bad), return_exceptions=True)
    threads.close()
    codes = [error.code if isinstance(error, GatewayError) else type(error) for error in [*answers, *again]]
    assert codes == [ValueError, "invalid_api_key", "invalid_api_key", ValueError]


def test_a_revoked_key_is_dead_on_every_gateway_at_once(
    stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant
) -> None:
    gateways = [stack.base_url, second_gateway.base_url]
    for base_url in gateways:
        assert post(base_url, alice.headers).status_code == 200
        assert HTTP.get(base_url + "/v1/models", headers=alice.headers).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    for base_url in gateways:
        response = post(base_url, alice.headers)
        assert_unauthorized(response, "key_revoked")
        assert attempts_of(stack, response) == []
        assert_unauthorized(HTTP.get(base_url + "/v1/models", headers=alice.headers), "key_revoked")
        count = HTTP.post(base_url + "/v1/messages/count_tokens", headers=alice.headers, json=body())
        assert_unauthorized(count, "key_revoked")


def test_the_other_keys_of_the_organization_live_on(stack: LiveStack, alice: Tenant) -> None:
    other_key, secret = create_key(alice.organization, name="other", created_by=None)
    other = Tenant(alice.organization, other_key, secret)
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    assert_unauthorized(stack.post(alice), "key_revoked")
    assert stack.post(other).status_code == 200


def test_an_expired_key(stack: LiveStack) -> None:
    late = stack.make_tenant(key={"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
    response = stack.post(late)
    assert_unauthorized(response, "key_expired")
    assert_refused(stack, late, response, 401, "key_expired")


def test_a_key_that_expires_while_it_is_in_use(stack: LiveStack) -> None:
    short = stack.make_tenant(key={"expires_at": datetime.now(UTC) + timedelta(seconds=3)})
    assert stack.post(short).status_code == 200
    stack.wait_until(lambda: stack.post(short).status_code != 200, "the key has expired")
    assert_unauthorized(stack.post(short), "key_expired")


@pytest.mark.parametrize("status", [Organization.Status.SUSPENDED, Organization.Status.CLOSED])
def test_an_organization_that_is_not_open(stack: LiveStack, alice: Tenant, status: str) -> None:
    assert stack.post(alice).status_code == 200
    change_organization(alice.organization, fields={"status": status})
    publish_pending_changes()
    stack.wait_until_quiet()
    assert_refused(stack, alice, stack.post(alice), 402, f"organization_{status}")
    change_organization(alice.organization, fields={"status": Organization.Status.ACTIVE})
    publish_pending_changes()
    assert stack.post(alice).status_code == 200


# --- restrictions ----------------------------------------------------------------------------------------------------


def test_models_that_a_key_may_not_use(stack: LiveStack) -> None:
    key = stack.make_tenant(key={"allowed_models": [HAIKU]})
    assert MODEL in assert_refused(stack, key, stack.post(key), 402, "model_not_allowed")
    assert stack.post(key, model=HAIKU).status_code == 200
    assert stack.post(key, model="claude-haiku-4-5").status_code == 200


def test_an_alias_does_not_get_around_the_restriction(stack: LiveStack) -> None:
    key = stack.make_tenant(key={"allowed_models": [HAIKU]})
    assert_refused(stack, key, stack.post(key, model="claude-sonnet-4-6"), 402, "model_not_allowed")


@pytest.mark.parametrize(
    ("networks", "is_allowed"),
    [
        (["127.0.0.1/32"], True),
        (["10.0.0.0/8", "127.0.0.0/8"], True),
        (["10.0.0.0/8"], False),
        (["::1/128"], False),
    ],
)
def test_networks_that_a_key_may_be_used_from(stack: LiveStack, networks: list[str], is_allowed: bool) -> None:
    key = stack.make_tenant(key={"allowed_networks": networks})
    if is_allowed:
        assert stack.post(key).status_code == 200
    else:
        assert_refused(stack, key, stack.post(key), 402, "network_not_allowed")
        assert_error(stack.get(key, "/v1/models"), 402, "network_not_allowed")


def test_a_forged_x_forwarded_for_opens_no_network(stack: LiveStack) -> None:
    key = stack.make_tenant(key={"allowed_networks": ["10.0.0.0/8"]})
    for forged in ("10.0.0.1", "10.0.0.1, 127.0.0.1", "127.0.0.1, 10.0.0.1"):
        response = post(stack.base_url, {**key.headers, "x-forwarded-for": forged, "forwarded": f"for={forged}"})
        assert_refused(stack, key, response, 402, "network_not_allowed")


@pytest.mark.parametrize(
    ("tight", "code", "status"),
    [
        ({"allowed_models": [HAIKU]}, "model_not_allowed", 402),
        ({"allowed_networks": ["10.0.0.0/8"]}, "network_not_allowed", 402),
        ({"daily_budget_nanos": 1}, "key_daily_budget_exceeded", 402),
    ],
)
def test_restrictions_take_effect_at_once_both_ways(
    stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant, tight: dict[str, Any], code: str, status: int
) -> None:
    """Also where a gateway refused before: it must not go on refusing by an old copy of the key."""
    loose = {name: getattr(alice.key, name) for name in tight}
    for base_url in (stack.base_url, second_gateway.base_url):
        assert post(base_url, alice.headers).status_code == 200
    for _ in range(2):
        change_key(alice.key, fields=tight)
        publish_pending_changes()
        for base_url in (stack.base_url, second_gateway.base_url):
            assert_error(post(base_url, alice.headers), status, code)
        change_key(alice.key, fields=loose)
        publish_pending_changes()
        for base_url in (stack.base_url, second_gateway.base_url):
            assert post(base_url, alice.headers).status_code == 200
    stack.wait_until_quiet()
    assert_nothing_is_held(stack, alice)

"""The official Python SDK in the version of today, beyond what the table of clients asks of every client."""

import asyncio
import time
from typing import Any

import anthropic
import httpx
import pytest

from tests.clients.matrix import MODEL
from tests.gateway.checks import wait_until_released
from tests.support.live_stack import LiveStack, Tenant

# Signs of life, in the order of the documented stream.
EVENTS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def sdk(stack: LiveStack, tenant: Tenant, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.base_url, **({"api_key": tenant.secret} | options))


def question(text: str = "Hello!", **fields: Any) -> Any:
    return {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": text}], **fields}


def test_a_key_is_an_api_key_or_a_bearer_token(
    stack: LiveStack, alice: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    by_token = anthropic.Anthropic(base_url=stack.base_url, auth_token=alice.secret)
    for client in (sdk(stack, alice), by_token):
        assert client.messages.create(**question()).stop_reason == "end_turn"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", stack.base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", alice.secret)
    assert anthropic.Anthropic().messages.create(**question()).stop_reason == "end_turn"


def test_everything_that_a_request_may_hold(stack: LiveStack, alice: Tenant) -> None:
    """Sampling too, which the SDK's own version of the API no longer has."""
    reply = sdk(stack, alice).messages.create(
        **question(
            messages=[
                {"role": "user", "content": "Describe it."},
                {"role": "assistant", "content": [{"type": "text", "text": "I need to see it."}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                        },
                        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                        {"type": "text", "text": "Here. [[sandbox: say=It is a STOP sign.]]"},
                    ],
                },
            ],
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            stop_sequences=["STOP"],
            metadata={"user_id": "someone"},
            extra_body={"temperature": 0.5, "top_k": 10},
        )
    )
    [block] = reply.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert (block.text, reply.stop_reason, reply.stop_sequence) == ("It is a ", "stop_sequence", "STOP")
    assert (reply.usage.cache_creation_input_tokens or 0) > 0


def test_a_stream_has_the_documented_events_in_order(stack: LiveStack, alice: Tenant) -> None:
    kinds: list[str] = []
    for event in sdk(stack, alice).messages.create(**question(), stream=True):
        if not kinds or kinds[-1] != event.type:
            kinds.append(event.type)
    assert kinds == [*EVENTS, "message_stop"]


def test_beta_requests_and_the_asynchronous_client(stack: LiveStack, alice: Tenant) -> None:
    reply = sdk(stack, alice).beta.messages.create(**question(), betas=["some-beta-2026-01-01"])
    assert reply.stop_reason == "end_turn"

    async def ask() -> anthropic.types.Message:
        async with anthropic.AsyncAnthropic(base_url=stack.base_url, api_key=alice.secret) as client:
            answered: anthropic.types.Message = await client.messages.create(**question())
            return answered

    assert asyncio.run(ask()).stop_reason == "end_turn"


def test_headers_that_the_sdk_shows(stack: LiveStack, alice: Tenant) -> None:
    raw = sdk(stack, alice).messages.with_raw_response.create(**question())
    reply = raw.parse()
    assert raw.request_id == reply._request_id == raw.headers["request-id"]
    assert reply.id.removeprefix("msg_") == raw.request_id.removeprefix("req_")
    assert int(raw.headers["anthropic-ratelimit-requests-remaining"]) > 0


def test_count_tokens_is_free(stack: LiveStack, alice: Tenant) -> None:
    asked = question("Hello!", tools=[{"name": "a", "input_schema": {"type": "object"}}])
    counted = sdk(stack, alice).messages.count_tokens(**{name: asked[name] for name in asked if name != "max_tokens"})
    assert counted.input_tokens == sdk(stack, alice).messages.create(**asked).usage.input_tokens
    wait_until_released(stack, alice)
    assert len(stack.records(alice)) == 1


def test_models_are_listed_page_by_page(stack: LiveStack, alice: Tenant) -> None:
    models = sdk(stack, alice).models
    everything = list(models.list(limit=1000))
    assert MODEL in [model.id for model in everything]
    assert [model.id for model in models.list(limit=2)] == [model.id for model in everything]
    assert len(everything) > 2
    [shown] = [model for model in everything if model.id == MODEL]
    assert models.retrieve(MODEL) == models.retrieve("claude-sonnet-4-6") == shown
    with pytest.raises(anthropic.NotFoundError):
        models.retrieve("claude-none-9")


def test_models_have_every_field_that_the_sdk_promises(stack: LiveStack, alice: Tenant) -> None:
    """Read strictly: by default the SDK lets anything pass, and its users find out when they look."""
    models = sdk(stack, alice, _strict_response_validation=True).models
    [shown] = [model for model in models.list(limit=1000) if model.id == MODEL]
    assert shown.capabilities
    assert shown.capabilities.image_input.supported
    assert not shown.capabilities.pdf_input.supported
    assert shown.capabilities.thinking.types.adaptive.supported
    assert shown.capabilities.server_tools.web_search.supported
    assert (shown.lifecycle, shown.max_tokens) == ("active", 128_000)


def test_errors_have_their_classes_and_our_words(stack: LiveStack, alice: Tenant) -> None:
    poor = stack.make_tenant(credit_usd="0")
    stranger = {"api_key": alice.secret[:-2] + "xx"}
    cases: list[tuple[anthropic.Anthropic, Any, type[anthropic.APIStatusError], str]] = [
        (sdk(stack, alice, **stranger), question(), anthropic.AuthenticationError, "invalid_api_key"),
        (sdk(stack, poor), question(), anthropic.PaymentRequiredError, "insufficient_balance"),
        (sdk(stack, alice), question(model="claude-none-9"), anthropic.NotFoundError, "model_not_found"),
        (sdk(stack, alice), question(max_tokens=-1), anthropic.BadRequestError, "invalid_request"),
    ]
    for client, asked, kind, code in cases:
        with pytest.raises(kind) as raised:
            client.messages.create(**asked)
        body: Any = raised.value.body
        assert body["error"]["code"] == code
        assert raised.value.request_id == body["request_id"]


def test_a_broken_stream_raises_what_it_is(stack: LiveStack, alice: Tenant) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="overloaded_error"),
        sdk(stack, alice).messages.stream(**question("[[sandbox: error=mid; tokens=60]]")) as stream,
    ):
        stream.until_done()


def test_a_rate_limit_is_waited_for(stack: LiveStack) -> None:
    brisk = stack.make_tenant(key={"requests_per_minute": 10})
    for _ in range(10):
        assert stack.post(brisk).status_code == 200
    refused = stack.post(brisk)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert sdk(stack, brisk).messages.create(**question()).stop_reason == "end_turn"
    wait_until_released(stack, brisk)
    assert len(stack.records(brisk)) == 11


def test_an_overloaded_model_is_tried_again_and_billed_once(stack: LiveStack, alice: Tenant) -> None:
    stack.sandbox.control("status=529", times=1)
    assert sdk(stack, alice).messages.create(**question()).stop_reason == "end_turn"
    wait_until_released(stack, alice)
    assert len(stack.records(alice)) == 1


def test_a_long_wait_is_not_slept_through(stack: LiveStack, alice: Tenant) -> None:
    """SDKs sleep for as long as `retry-after` says, unless they are told not to try again."""
    began = time.monotonic()
    with pytest.raises(anthropic.APIStatusError) as raised:
        sdk(stack, alice).messages.create(**question("[[sandbox: status=429; retry_after=600]]"))
    response: httpx.Response = raised.value.response  # type: ignore[assignment]
    assert (raised.value.status_code, response.headers["retry-after"]) == (503, "600")
    assert response.headers["x-should-retry"] == "false"
    assert time.monotonic() - began < 30

"""Bodies of up to 32 MiB through the real gateway: what costs too much is refused before it is parsed, what real
clients send passes, and nothing of it is kept while a stream runs.
"""

import contextlib
from typing import Any

import httpx
import orjson
import psutil
import pytest

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error, assert_refused
from tests.support.live_stack import HTTP, MODEL, LiveStack, Tenant, body

MEBIBYTE = 1024**2
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
DENSE = b'{"a":[' + b",".join([b"[" * 50 + b"9" * 64 + b"]" * 50] * (31 * MEBIBYTE // 165)) + b"]}"
STREAMS = 4


def post(stack: LiveStack, tenant: Tenant, content: bytes, path: str = MESSAGES) -> httpx.Response:
    return HTTP.post(stack.base_url + path, headers=tenant.headers, content=content)


def with_images(*sizes: int, **fields: Any) -> bytes:
    images = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * size}} for size in sizes
    ]
    content = [*images, {"type": "text", "text": fields.pop("text", "What is this? 😀")}]
    return orjson.dumps(body(messages=[{"role": "user", "content": content}], **fields))


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
def test_deep_lists_of_big_integers_are_refused(stack: LiveStack, alice: Tenant, path: str) -> None:
    message = assert_refused(stack, alice, post(stack, alice, DENSE, path), 400, "body_too_complex")
    assert message.startswith("The request body has more than ")


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
def test_a_key_that_has_too_much_read_for_nothing_is_told_so_before_it_is(stack: LiveStack, path: str) -> None:
    greedy, other = stack.make_tenant(), stack.make_tenant()
    answers = [post(stack, greedy, DENSE, path)]
    while answers[-1].status_code == 400 and len(answers) < 100:
        answers.append(post(stack, greedy, DENSE, path))
    assert_error(answers[-1], 429, "rate_limited_unpaid_work")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 4
    assert post(stack, other, DENSE, path).status_code == 400
    assert stack.post(other).status_code == 200


def test_who_pays_is_not_held_to_it(stack: LiveStack, alice: Tenant) -> None:
    content = with_images(10 * MEBIBYTE, 10 * MEBIBYTE)
    assert [post(stack, alice, content).status_code for _ in range(14)] == [200] * 14


@pytest.mark.parametrize("protocol", list(Upstream.Protocol))
def test_31_mib_of_images_are_served(stack: LiveStack, protocol: Upstream.Protocol) -> None:
    tenant = stack.make_tenant(credit_usd="100")
    sold = sell_catalog_model(stack, tenant, [stack.base_url], protocol=protocol)
    content = with_images(15 * MEBIBYTE, 15 * MEBIBYTE, model=sold.model_id)
    assert post(stack, tenant, content).status_code == 200
    assert post(stack, tenant, content, COUNT_TOKENS).status_code == 200


def test_a_large_whole_reply_is_served(stack: LiveStack, alice: Tenant) -> None:
    assert stack.post(alice, "[[sandbox: flood=3000000]]").status_code == 200


def test_a_stream_keeps_nothing_of_a_large_body(stack: LiveStack) -> None:
    tenant = stack.make_tenant(credit_usd="100")
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    slow = "[[sandbox: tokens=40; pace=0; hang=mid; after=2]]"
    content = with_images(15 * MEBIBYTE, 15 * MEBIBYTE, text=slow, stream=True)
    assert post(stack, tenant, with_images(15 * MEBIBYTE, 15 * MEBIBYTE)).status_code == 200
    before = process.memory_info().rss
    with contextlib.ExitStack() as exits:
        for _ in range(STREAMS):
            response = exits.enter_context(
                HTTP.stream("POST", stack.base_url + MESSAGES, headers=tenant.headers, content=content)
            )
            assert response.status_code == 200
            lines = response.iter_lines()
            while "content_block_delta" not in next(lines):
                pass
        kept = process.memory_info().rss - before
    stack.wait_until_quiet()
    assert kept < STREAMS * 8 * MEBIBYTE


def test_a_stream_of_a_large_body_is_billed(stack: LiveStack) -> None:
    tenant = stack.make_tenant(credit_usd="100")
    response = post(stack, tenant, with_images(8 * MEBIBYTE, stream=True, model=MODEL))
    assert "message_stop" in response.text
    assert stack.record(response).cost_nanos > 0

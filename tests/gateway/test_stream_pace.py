"""A stream reaches the client piece by piece, as its upstream speaks: nothing on the way waits for more."""

import httpx

from tests.support.live_stack import LiveStack, Tenant, body

DELTAS_BEFORE_SILENCE = 4


def test_what_was_said_arrives_although_nothing_follows(stack: LiveStack, alice: Tenant) -> None:
    """The upstream falls silent in the middle. Whoever read ahead, on our way, would still wait for the rest."""
    silent = f"[[sandbox: tokens=60; pace=0; hang=mid; after={DELTAS_BEFORE_SILENCE}]]"
    arrived = 0
    with httpx.stream(
        "POST", stack.base_url + "/v1/messages", headers=alice.headers, json=body(silent, stream=True), timeout=30
    ) as response:
        for line in response.iter_lines():
            arrived += line == "event: content_block_delta"
            if arrived == DELTAS_BEFORE_SILENCE:
                break
    assert arrived == DELTAS_BEFORE_SILENCE
    stack.wait_until_quiet()

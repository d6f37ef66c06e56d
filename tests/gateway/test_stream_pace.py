"""A stream reaches the client piece by piece, as its upstream speaks: nothing on the way waits for more."""

import time

import httpx

from tests.support.world import Caller, World, body

PACE_MS = 40
TOKENS = 60


def test_each_delta_arrives_when_it_was_said(world: World, alice: Caller) -> None:
    request = body(f"Slowly. [[sandbox: tokens={TOKENS}; pace={PACE_MS}]]", stream=True)
    arrivals = []
    with httpx.stream(
        "POST", world.base_url + "/v1/messages", headers=alice.headers, json=request, timeout=30
    ) as response:
        for line in response.iter_lines():
            if line == "event: content_block_delta":
                arrivals.append(time.monotonic())
    ended = time.monotonic()
    assert len(arrivals) >= 10
    paced_seconds = (len(arrivals) - 1) * PACE_MS / 1000
    # Read ahead, all of it would come at once, at the end.
    assert ended - arrivals[0] >= 0.8 * paced_seconds
    assert arrivals[len(arrivals) // 2] - arrivals[0] >= 0.3 * paced_seconds

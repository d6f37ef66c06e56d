"""Seeded raw bytes, on both sides of the gateway: requests that no client would send, answers that no provider would.

Each seed makes one case; a case that fails is run again by its seed alone: -k "[17]".
"""

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.checks import TYPE_BY_STATUS, wait_until_released
from tests.gateway.scripted_upstream import COMPLETE, MESSAGE, ScriptedUpstream, scripted_upstream, streamed, whole
from tests.gateway.wire import Connection
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

SEEDS = range(25)
QUIET_SECONDS = 1.0  # A request that is not whole gets no answer; nobody waits for one longer than this.
MOST_ANSWER_SECONDS = 20.0
SMUGGLED = b"GET /v1/models/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
WHOLE_REPLY = json.dumps(
    {**MESSAGE, "content": [{"type": "text", "text": "Hi there"}], "stop_reason": "end_turn"}
).encode()

Mutation = Callable[[random.Random, bytes], bytes]

# --- mutations ------------------------------------------------------------------------------------------------------


def flip_a_byte(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([rng.randrange(256)]) + raw[place + 1 :]


def drop_bytes(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + raw[place + rng.randint(1, 20) :]


def repeat_a_part(rng: random.Random, raw: bytes) -> bytes:
    start = rng.randrange(len(raw))
    end = start + rng.randint(1, 40)
    return raw[:end] + raw[start:]


def add_odd_bytes(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return (
        raw[:place] + rng.choice([b"\r\n", b"\n", b"\r", b"\0", b"\t", b"  ", b"\xff", b":", b"\r\n\r\n"]) + raw[place:]
    )


def add_a_line(rng: random.Random, raw: bytes) -> bytes:
    lines = [
        b"transfer-encoding: chunked",
        b"transfer-encoding: chunked, identity",
        b"Transfer-Encoding : chunked",
        b"content-length: 5",
        b"content-length: -1",
        b"content-length: +10",
        b"content-length: 99999999999999999999",
        b"content-length:",
        b" folded: line",
        b"connection: upgrade\r\nupgrade: websocket",
        b"connection: close, x-api-key",
        b"expect: 200-maybe",
        b"expect: 100-continue",
        b"content-encoding: gzip",
        b"host: other",
        b"x-long: " + b"y" * rng.choice([100, 70_000]),
        b"\xe9: \xff",
        b"no colon",
    ]
    head, mark, rest = raw.partition(b"\r\n\r\n")
    head_lines = head.split(b"\r\n")
    head_lines.insert(rng.randint(1, len(head_lines)), rng.choice(lines))
    return b"\r\n".join(head_lines) + mark + rest


def lose_a_line(rng: random.Random, raw: bytes) -> bytes:
    head, mark, rest = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    del lines[rng.randrange(len(lines))]
    return b"\r\n".join(lines) + mark + rest


def end_early(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(1, len(raw))]


MUTATIONS: tuple[Mutation, ...] = (
    flip_a_byte,
    drop_bytes,
    repeat_a_part,
    add_odd_bytes,
    add_a_line,
    lose_a_line,
    end_early,
)


def mutate(rng: random.Random, raw: bytes, times: int) -> bytes:
    for _ in range(times):
        raw = rng.choice(MUTATIONS)(rng, raw or b"\0")
    return raw


def in_pieces(rng: random.Random, raw: bytes) -> list[bytes]:
    """Return the same bytes in one to five writes."""
    places = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randint(0, 4)))
    return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]


# --- requests -------------------------------------------------------------------------------------------------------


def frame(rng: random.Random, tenant: Tenant, content: bytes) -> bytes:
    """Return a request that is right, in one of the ways that HTTP/1.1 has to write it."""
    lines = [b"host: localhost", b"x-api-key: " + tenant.secret.encode(), b"content-type: application/json"]
    if rng.random() < 0.3:
        lines += [b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQCAAAAAAIAAAAA"]
    else:
        lines.append(b"connection: close")
    if rng.random() < 0.5:
        lines.append(b"content-length: %d" % len(content))
        framed = content
    else:
        lines.append(b"transfer-encoding: chunked")
        pieces = [piece for piece in in_pieces(rng, content) if piece]
        extension = rng.choice([b"", b";a=b", b';a="b"'])
        framed = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n"
        framed += rng.choice([b"", b"x-api-key: cm-other\r\n", b"x-checksum: 3\r\n"]) + b"\r\n"
    rng.shuffle(lines)
    target = rng.choice([b"/v1/messages", b"/v1/messages?beta=true", b"http://localhost/v1/messages"])
    return b"POST " + target + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + framed


def exchange(base_url: str, parts: list[bytes], *, quiet_seconds: float = QUIET_SECONDS) -> bytes:
    """Send the parts; return what comes until the connection ends, or until nothing has come for so long."""
    with Connection(base_url) as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.socket.sendall(part)
                time.sleep(0.002)
        connection.socket.settimeout(quiet_seconds)
        with contextlib.suppress(TimeoutError):
            connection.read_rest()
        return connection.received


def read_answers(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield status and body of each answer in a row of them. Fails where the row is no HTTP."""
    while raw:
        head, mark, rest = raw.partition(b"\r\n\r\n")
        assert mark, raw[:200]
        assert head.startswith(b"HTTP/1.1 "), head[:200]
        status = int(head.split()[1])
        if status == 100:
            raw = rest
            continue
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        assert len(lengths) == 1, head
        length = int(lengths[0].partition(b":")[2])
        assert len(rest) >= length, (length, rest[:200])
        yield status, rest[:length]
        raw = rest[length:]


def assert_documented(status: int, content: bytes) -> None:
    if status == 200:
        assert json.loads(content)["type"] == "message"
        return
    assert status in TYPE_BY_STATUS, status
    assert status < 500, content
    error = json.loads(content)["error"]
    assert error["type"] == TYPE_BY_STATUS[status], content
    assert error["message"], content


@pytest.mark.parametrize("seed", SEEDS)
def test_a_right_request_is_served_however_it_is_written_and_cut(stack: LiveStack, alice: Tenant, seed: int) -> None:
    rng = random.Random(seed)
    content = json.dumps(body("Before\r\n\r\n0\r\n\r\n" + SMUGGLED.decode())).encode().replace(b"\\r\\n", b"\\n")
    parts = in_pieces(rng, frame(rng, alice, content))
    answers = list(read_answers(exchange(stack.base_url, parts, quiet_seconds=MOST_ANSWER_SECONDS)))
    assert [status for status, _ in answers] == [200]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wrong_request_gets_a_documented_answer_or_none(stack: LiveStack, alice: Tenant, seed: int) -> None:
    rng = random.Random(1_000 + seed)
    raw = mutate(rng, frame(rng, alice, json.dumps(body()).encode()), rng.randint(1, 3))
    for status, content in read_answers(exchange(stack.base_url, in_pieces(rng, raw))):
        assert_documented(status, content)
    assert HTTP.post(stack.base_url + "/v1/messages", headers=alice.headers, json=body()).status_code == 200
    wait_until_released(stack, alice)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_body_holds_is_no_request(stack: LiveStack, alice: Tenant, seed: int) -> None:
    """Neither of a body that is refused unread, nor of one that ends in the middle of what looks like a request."""
    rng = random.Random(2_000 + seed)
    content = SMUGGLED * rng.randint(1, 5_000)
    key = rng.choice([alice.secret, "cm-AAAAAAAA-" + "A" * 43])
    lines = [b"POST /v1/messages HTTP/1.1", b"host: localhost", b"x-api-key: " + key.encode()]
    if rng.random() < 0.5:
        raw = b"\r\n".join([*lines, b"content-length: %d" % len(content), b"", b""]) + content
    else:
        raw = b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b""]) + b"%x\r\n" % len(content) + content
        raw += b"\r\n0\r\n\r\n"
    answers = list(read_answers(exchange(stack.base_url, in_pieces(rng, raw))))
    assert len(answers) <= 1
    assert all(b"smuggled" not in answer for _, answer in answers)


# --- answers of upstreams -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture
def sold(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> SoldModel:
    return sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_answer_of_an_upstream_is_told_in_the_documented_form(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, sold: SoldModel, seed: int, stream: bool
) -> None:
    rng = random.Random(3_000 + seed)
    right = streamed(*COMPLETE) if stream else whole(WHOLE_REPLY)
    upstream.script = in_pieces(rng, mutate(rng, right, rng.randint(1, 3)))
    answer = HTTP.post(
        stack.base_url + "/v1/messages",
        headers=alice.headers,
        json=body(model=sold.model_id, stream=stream),
        timeout=MOST_ANSWER_SECONDS,
    )
    if answer.status_code == 200 and stream:
        last = answer.text.rstrip("\n").rpartition("\n\n")[2]
        assert last.startswith(("event: message_stop\n", "event: error\n")), answer.text[-300:]
    elif answer.status_code == 200:
        assert answer.json()["type"] == "message"
    else:
        assert answer.json()["error"]["type"] == TYPE_BY_STATUS.get(answer.status_code, "invalid_request_error")
        assert answer.json()["error"]["code"] != "internal_error"
    wait_until_released(stack, alice)

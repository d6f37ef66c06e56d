"""Every behaviour on demand: what reaches the client, and what the journal says of it."""

import asyncio
import gzip
import time
from pathlib import Path

import httpx
import orjson
import pytest

from sandbox.faults import EXCESS_CONTENT_LENGTH
from tests.sandbox.conftest import LastRecord
from tests.sandbox.conversation import ask, read_events, read_until_broken, stream, text_of
from tests.support.sandbox_process import SandboxServer

PATH = "/v1/messages"
CHAT = "/v1/chat/completions"


def directed(directives: str, *, streamed: bool = False) -> dict[str, object]:
    return ask(f"Hello [[sandbox: {directives}]]", stream=streamed)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (529, "overloaded_error"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_status(
    client: httpx.AsyncClient, last_record: LastRecord, status: int, kind: str, streamed: bool
) -> None:
    response = await client.post(PATH, json=directed(f"status={status}", streamed=streamed))
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert response.headers.get("retry-after") == ("2" if status == 429 else None)
    record = last_record()
    assert (record.delivered, record.status, record.usage) == (f"failed:status={status}", status, None)


async def test_error_texts_and_forms(client: httpx.AsyncClient) -> None:
    said = await client.post(PATH, json=directed("status=400; message=tools.0: no"))
    assert said.json()["error"]["message"] == "tools.0: no"
    page = await client.post(PATH, json=directed("html"))
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    assert (await client.post(PATH, json=directed("string_error"))).json() == {"error": "sandbox: something broke"}
    chat = await client.post(CHAT, json=directed("status=429; retry_after=7"))
    assert (chat.headers["retry-after"], list(chat.json())) == ("7", ["error"])


@pytest.mark.parametrize("moment", ["before_headers", "after_headers", "mid"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_reset(client: httpx.AsyncClient, last_record: LastRecord, moment: str, streamed: bool) -> None:
    received, error = await read_until_broken(client, PATH, directed(f"tokens=40; reset={moment}", streamed=streamed))
    assert isinstance(error, httpx.ReadError)
    assert bool(received) == (moment == "mid")
    record = last_record()
    assert record.delivered == f"failed:reset={moment}"
    if streamed and moment == "mid":
        assert (record.deltas, record.text_chars, text_of(read_events(received))) == (
            4,
            80,
            "This is CrossModel's sandbox, not a real model: it answers with made-up words, s"[:80],
        )


@pytest.mark.parametrize("moment", ["before_headers", "after_headers", "mid"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_hang(client: httpx.AsyncClient, last_record: LastRecord, moment: str, streamed: bool) -> None:
    client.timeout = httpx.Timeout(5, read=0.3)
    _, error = await read_until_broken(client, PATH, directed(f"tokens=40; hang={moment}", streamed=streamed))
    assert isinstance(error, httpx.ReadTimeout)
    await client.aclose()
    assert last_record.ended().delivered == f"failed:hang={moment}"


async def test_clean_end_in_the_middle(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    received, error = await read_until_broken(client, PATH, directed("tokens=40; close=mid; after=2", streamed=True))
    assert error is None
    events = read_events(received)
    assert events[-1][0] == "content_block_delta" and len(text_of(events)) == 40
    assert last_record().delivered == "failed:close=mid"
    _, error = await read_until_broken(client, PATH, directed("close=mid"))
    assert isinstance(error, httpx.RemoteProtocolError)


async def test_error_event_in_the_middle(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    events = await stream(client, PATH, directed("tokens=40; error=mid"))
    assert events[-1][0] == "error" and events[-1][1]["error"]["type"] == "overloaded_error"
    record = last_record()
    assert (record.delivered, record.deltas) == ("failed:error=mid", 4)
    assert record.usage is not None and record.usage["output"] == 1
    assert (await client.post(PATH, json=directed("error=mid"))).status_code == 529


async def test_usage_directives(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    directives = "input_tokens=11; cache_read=22; cache_write_5m=33; cache_write_1h=44; tokens=5"
    usage = (await client.post(PATH, json=directed(directives))).json()["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (11, 22, 5)
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 33, "ephemeral_1h_input_tokens": 44}
    assert usage["cache_creation_input_tokens"] == 77
    assert last_record().usage == {
        "input": 11, "output": 5, "cache_write_5m": 33, "cache_write_1h": 44, "cache_read": 22, "web_searches": 0,
    }  # fmt: skip
    unsplit = (await client.post(PATH, json=directed("cache_write=50"))).json()["usage"]
    assert unsplit["cache_creation_input_tokens"] == 50 and "cache_creation" not in unsplit
    assert (await client.post(PATH, json=directed("negative_usage"))).json()["usage"]["output_tokens"] == -1_000
    assert (await client.post(PATH, json=directed("absurd_usage"))).json()["usage"]["output_tokens"] == 10**18


async def test_no_usage_at_all(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    assert "usage" not in (await client.post(PATH, json=directed("no_usage"))).json()
    events = await stream(client, PATH, directed("no_usage"))
    assert "usage" not in events[0][1]["message"] and "usage" not in events[-2][1]
    assert (last_record().delivered, last_record().usage) == ("complete", None)


async def test_message_delta_twice_or_shorter_or_never_stopped(
    client: httpx.AsyncClient, last_record: LastRecord
) -> None:
    twice = await stream(client, PATH, directed("duplicate_delta; tokens=9"))
    assert [event["usage"]["output_tokens"] for name, event in twice if name == "message_delta"] == [9, 9]
    assert (await stream(client, PATH, directed("output_only_delta; tokens=9")))[-2][1]["usage"] == {"output_tokens": 9}
    assert (await stream(client, PATH, directed("no_message_stop")))[-1][0] == "message_delta"
    assert last_record().delivered == "failed:no_message_stop"


async def test_broken_bodies(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    for directive in ("bad_json", "truncated_json"):
        response = await client.post(PATH, json=directed(directive))
        assert response.status_code == 200
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(response.content)
        assert last_record().delivered == f"failed:{directive}"
    received, error = await read_until_broken(client, PATH, directed("wrong_content_length"))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert f"received {len(received)} bytes, expected {len(received) + EXCESS_CONTENT_LENGTH}" in str(error)
    assert last_record().delivered == "failed:wrong_content_length"


async def test_broken_streams(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    events = await stream(client, PATH, directed("malformed_sse; tokens=20"))
    assert [name for name, event in events if isinstance(event, str)] == ["content_block_delta"]
    assert last_record().delivered == "failed:malformed_sse"
    events = await stream(client, PATH, directed("out_of_order_index; thinking=4"))
    assert [event["index"] for name, event in events if name == "content_block_start"] == [7, 6]


async def test_oddities_on_the_wire_change_no_text(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    plain = text_of(await stream(client, PATH, directed("tokens=50")))
    for oddity in ("crlf", "drip=3", "comments", "ping", "gzip", "pace=0", "delta=1", "pace=1"):
        assert text_of(await stream(client, PATH, directed(f"{oddity}; tokens=50"))) == plain, oddity
        assert last_record().is_complete, oddity
    for oddity in ("drip=3", "gzip", "first=1"):
        response = await client.post(PATH, json=directed(f"{oddity}; tokens=50"))
        assert response.json()["content"][0]["text"] == plain, oddity


async def test_the_wire_itself(client: httpx.AsyncClient) -> None:
    raw, _ = await read_until_broken(client, PATH, directed("crlf; comments", streamed=True))
    assert raw.startswith(b": sandbox comment\r\n\r\nevent: message_start\r\ndata: ") and b"\n" not in raw.replace(
        b"\r\n", b""
    )
    packed, _ = await read_until_broken(client, PATH, directed("gzip", streamed=True))
    assert read_events(gzip.decompress(packed))[-1][0] == "message_stop"
    async with client.stream("POST", PATH, json=directed("split_utf8; tokens=80; pace=0", streamed=True)) as response:
        parts = [part async for part in response.aiter_raw()]
    assert any(_ends_inside_a_character(part) for part in parts)
    assert "日本" in text_of(read_events(b"".join(parts)))


def _ends_inside_a_character(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return True
    return False


async def test_odd_characters(client: httpx.AsyncClient) -> None:
    assert text_of(await stream(client, PATH, directed("say=a b; nul"))) == "a\x00 b"
    assert text_of(await stream(client, PATH, directed("say=a b; u2028"))) == "a\u2028\u2029\u0085 b"


async def test_huge_event_and_flood(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    events = await stream(client, PATH, directed("huge_event=1000000; tokens=5"))
    assert max(len(event["delta"]["text"]) for name, event in events if name == "content_block_delta") == 1_000_020
    events = await stream(client, PATH, directed("flood=300000"))
    assert len(text_of(events)) == 300_000
    assert (last_record().text_chars, last_record().deltas) == (300_000, 15_000)


async def test_pace_first_and_delay_take_their_time(client: httpx.AsyncClient) -> None:
    started = time.monotonic()
    async with client.stream(
        "POST", PATH, json=directed("delay=100; first=500; pace=50; tokens=15", streamed=True)
    ) as response:
        headers_seconds = time.monotonic() - started
        arrivals = [time.monotonic() - started async for _ in response.aiter_raw()]
    assert 0.1 <= headers_seconds < 0.6
    assert arrivals[0] >= 0.6
    assert arrivals[-1] >= 0.7, "three deltas have two pauses"


async def test_echo(client: httpx.AsyncClient) -> None:
    body = directed("echo", streamed=False) | {"max_tokens": 1, "unknown": {"kept": [1, None]}}
    message = (await client.post(PATH, json=body)).json()
    assert orjson.loads(message["content"][0]["text"]) == body
    headers = {"x-odd": "kept", "anthropic-beta": "one,two"}
    message = (await client.post(PATH, json=directed("echo_headers"), headers=headers)).json()
    echoed = orjson.loads(message["content"][0]["text"])
    assert (echoed["x-odd"], echoed["anthropic-beta"], echoed["x-api-key"]) == ("kept", "one,two", "...abcd")


async def test_a_client_that_leaves_is_journaled(client: httpx.AsyncClient, last_record: LastRecord) -> None:
    async with client.stream("POST", PATH, json=directed("tokens=400; pace=20", streamed=True)) as response:
        received = bytearray()
        async for part in response.aiter_raw():
            received += part
            if received.count(b"text_delta") >= 3:
                break
    record = last_record.ended()
    assert record.delivered == "aborted_by_client"
    assert 3 <= record.deltas <= 5 and record.text_chars == 20 * record.deltas


async def test_a_slow_reader_does_not_make_the_sandbox_hoard(client: httpx.AsyncClient, sandbox: SandboxServer) -> None:
    def resident_bytes() -> int:
        return int(Path(f"/proc/{sandbox.pid}/statm").read_text().split()[1]) * 4096

    await client.post(PATH, json=directed("flood=2000000"))
    before = resident_bytes()
    body = directed("flood=2000000; delta=10", streamed=True)
    async with client.stream("POST", PATH, json=body) as response:
        parts = response.aiter_raw(100)
        await anext(parts)
        await asyncio.sleep(1.5)
        assert sandbox.journal()[-1].delivered == "started"
        # These 200,000 deltas are over 20 MB on the wire; only their 2 MB of text may be held.
        assert resident_bytes() - before < 10_000_000

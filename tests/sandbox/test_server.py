"""The process: how it starts and stops, its control endpoint, its journal across kills."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.journal import read_journal
from tests.sandbox.conversation import KEY, VERSION, ask
from tests.support.sandbox_process import SandboxServer
from tests.support.unstalled import UnstalledTime

PATH = "/v1/messages"
HEADERS = {"x-api-key": KEY, "anthropic-version": VERSION}


def test_it_starts_quickly_and_small_without_django() -> None:
    taken = UnstalledTime()
    with SandboxServer() as sandbox:
        seconds = taken.seconds
        httpx.post(sandbox.url + PATH, json=ask(), headers=HEADERS).raise_for_status()
        status = Path(f"/proc/{sandbox.pid}/status").read_text()
    kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    # Half a second on a quiet machine; the suite shares two cores.
    assert seconds < 2 and kilobytes < 40_000
    loaded = subprocess.run(
        [sys.executable, "-c", "import sandbox.__main__, sys; print([m for m in sys.modules if 'django' in m])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert loaded.stdout.strip() == "[]"


def test_a_busy_port_is_one_line_and_an_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "sandbox", "--port", port], capture_output=True, text=True, timeout=10, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"sandbox: cannot serve at 127.0.0.1:{port}") and ended.stderr.count("\n") == 1


def test_it_ends_with_whoever_started_it() -> None:
    script = (
        "import os; from tests.support.sandbox_process import SandboxServer;"
        "s = SandboxServer(); s.start(); print(s.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    pid = int(ended.stdout)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the sandbox outlived its starter"
        time.sleep(0.02)


async def test_control_for_the_next_requests(client: httpx.AsyncClient, sandbox: SandboxServer) -> None:
    sandbox.control("status=529", times=2)
    assert [(await client.post(PATH, json=ask())).status_code for _ in range(3)] == [529, 529, 200]


async def test_control_by_model_and_turn_until_cleared(client: httpx.AsyncClient, sandbox: SandboxServer) -> None:
    sandbox.control("status=503", model="sick", every=2)
    sick = [(await client.post(PATH, json=ask(model="sick"))).status_code for _ in range(4)]
    assert sick == [200, 503, 200, 503]
    assert (await client.post(PATH, json=ask())).status_code == 200
    # What a request writes itself wins over what was set.
    sandbox.clear()
    sandbox.control("tokens=5; status=500")
    assert (await client.post(PATH, json=ask("[[sandbox: status=403]]"))).status_code == 403
    sandbox.clear()
    assert (await client.post(PATH, json=ask())).status_code == 200


@pytest.mark.parametrize(
    "body", [{"directives": "nonsense"}, {"directives": "html", "times": 0}, {"direct": "html"}, [1]]
)
async def test_control_refuses_what_makes_no_sense(client: httpx.AsyncClient, body: object) -> None:
    assert (await client.post("/sandbox/control", json=body)).status_code == 400
    assert (await client.get("/sandbox/control")).json() == {"behaviours": []}


async def test_requests_on_one_connection_are_answered_in_order(sandbox: SandboxServer) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for text in ("first [[sandbox: say=one; delay=50]]", "second [[sandbox: say=two]]"):
        body = httpx.Request("POST", "http://x", json=ask(text)).content
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\nanthropic-version: {VERSION}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    received = b""
    while b'"two"' not in received:
        received += await asyncio.wait_for(reader.read(65_536), 5)
    assert received.index(b'"one"') < received.index(b'"two"')
    writer.close()


async def test_journal_survives_kill_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    sandbox = SandboxServer(journal=path)
    sandbox.start()
    url = sandbox.url
    async with httpx.AsyncClient(headers=HEADERS) as client:
        (await client.post(url + PATH, json=ask())).raise_for_status()
        body = ask("[[sandbox: hang=mid; tokens=40]]", stream=True)
        async with client.stream("POST", url + PATH, json=body):
            sandbox.kill()
    with path.open("ab") as torn:
        torn.write(b'{"n":2,"delivered":"complete","usage":{}')
    sandbox.start()
    assert sandbox.url == url
    async with httpx.AsyncClient(headers=HEADERS) as client:
        (await client.post(url + PATH, json=ask())).raise_for_status()
        async with client.stream("POST", url + PATH, json=ask("[[sandbox: pace=50; tokens=900]]", stream=True)):
            sandbox.stop()
    assert [(record.n, record.delivered) for record in read_journal(path)] == [
        (1, "complete"),
        (2, "started"),
        (3, "complete"),
        (4, "failed:stopped"),
    ]


async def test_complete_is_on_disk_before_the_client_has_all(client: httpx.AsyncClient, sandbox: SandboxServer) -> None:
    async def one(number: int) -> None:
        request_id = f"{number:032x}"
        response = await client.post(
            PATH, json=ask(stream=bool(number % 2)), headers={"x-crossmodel-request-id": request_id}
        )
        assert response.status_code == 200
        # Read at once, while others are still running: the line has to be there already.
        delivered = {record.request_id: record.delivered for record in sandbox.journal()}
        assert delivered[request_id] == "complete"

    await asyncio.gather(*(one(number) for number in range(40)))
    numbers = [record.n for record in sandbox.journal()]
    assert numbers == sorted(set(numbers))


async def test_a_buffered_journal_is_written_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with SandboxServer(journal=path, fast=True) as sandbox:
        async with httpx.AsyncClient(headers=HEADERS) as client:
            for _ in range(5):
                (await client.post(sandbox.url + PATH, json=ask())).raise_for_status()
    assert [record.delivered for record in read_journal(path)] == ["complete"] * 5

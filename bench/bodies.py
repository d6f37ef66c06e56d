"""What a body of any shape costs beside plain text of its size: CPU, memory, how long it holds up everybody else.

Each shape is posted by itself, while a probe asks the gateway for nothing again and again: the longest it waits is the
longest that anything stood still. Then it is posted over and over beside 48 small requests at a time.
"""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.deployment import Deployment, Program
from bench.process_cpu import cpu_ms

MEBIBYTE = 1024**2
SIZES = {"32 MiB": 31 * MEBIBYTE, "1 MiB": MEBIBYTE}
SMALL_CONNECTIONS = 48
SMALL_REQUESTS, QUICK_SMALL_REQUESTS = 6_000, 2_000
TIMES_ALONE = 3
PAUSE_SECONDS = 0.3  # Between two posts alone: what runs after the answer belongs to it.
PROBE_SECONDS = 0.001
CALL_SECONDS = 60
PLAIN = "plain text"
CLEAR_PEAK = "5"  # Written to clear_refs: the peak of the resident memory starts again.

Results = dict[str, float]


def shapes(size: int) -> dict[str, bytes]:
    """Return bodies of about this size by name."""

    def text(content: bytes) -> bytes:
        return _body(b'"' + content + b'"')

    def listed(item: bytes) -> bytes:
        items = b",".join([item] * (size // (len(item) + 1)))
        return _body(b'"Hi"', b',"metadata":{"user_id":"u","a":[' + items + b"]}")

    image = b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"' + b"A" * (size // 2) + b'"}}'
    words = b"What costs the most, and how would you find out? "
    return {
        PLAIN: text(words * (size // len(words))),
        "two images": _body(b"[" + image + b"," + image + b"]"),
        "many texts": _body(
            b"[" + b",".join([b'{"type":"text","text":"' + words * 20 + b'"}'] * (size // 1024)) + b"]"
        ),
        "emoji": text("😀".encode() * (size // 4)),
        "one emoji": text(b"a" * size + "😀".encode()),
        "\\u0000": text(rb"\u0000" * (size // 6)),
        "half surrogates": text(rb"\ud83d" * (size // 6)),
        "backslashes": text(rb"\\" * (size // 2)),
        "whitespace": _body(b'"Hi"' + b" " * size),
        "one key": _body(b'"Hi"', b',"' + b"k" * size + b'":1'),
        "many keys": _body(b'"Hi"', b"".join(b',"k%d":1' % number for number in range(size // 12))),
        "the same key": _body(b'"Hi"', b',"k":1' * (size // 6)),
        "tiny integers": listed(b"1"),
        "integers of 64 digits": listed(b"7" * 64),
        "integers of 300 digits": listed(b"7" * 300),
        "floats of 4,000 digits": listed(b"0." + b"7" * 4_000),
        "empty lists": listed(b"[]"),
        "empty objects": listed(b"{}"),
        "deep lists of big integers": listed(b"[" * 50 + b"7" * 64 + b"]" * 50),
        "10,000 levels": listed(b"[" * 10_000 + b"]" * 10_000),
        "endless levels": b"[" * size,
        "tiny blocks": _body(b"[" + b",".join([b'{"type":"text","text":"a"}'] * (size // 27)) + b"]"),
        "tiny tools": _body(b'"Hi"', b',"tools":[' + b",".join([b'{"name":"a"}'] * (size // 13)) + b"]"),
        "cache_control": _body(
            b"[" + b",".join([b'{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}'] * (size // 64)) + b"]"
        ),
    }


def _body(content: bytes, more: bytes = b"") -> bytes:
    from bench.tenants import MODEL

    head = b'{"model":"%b","max_tokens":16,"messages":[{"role":"user","content":' % MODEL.encode()
    return head + content + b"}]" + more + b"}"


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return the results of every shape by size, and those of the small requests with nothing beside them."""
    from bench.requests import make_tenants, wait_until_settled
    from bench.tenants import make_tenant, write_requests

    total = QUICK_SMALL_REQUESTS if quick else SMALL_REQUESTS
    upstream, gateway, worker = deployment.start_upstream(), deployment.start_gateway(), deployment.start_worker()
    small = write_requests(deployment.folder / "small.json", make_tenants("small"))
    try:
        run_small(deployment, gateway, small, total)
        alone = [run_small(deployment, gateway, small, total) for _ in range(TIMES_ALONE)]
        found: dict[str, dict[str, Results]] = {}
        for size_name, size in SIZES.items():
            for name, content in shapes(size).items():
                tenant = make_tenant(f"{name}, {size_name}", credit_usd="100000")
                results = measure_alone(gateway, tenant.secret, content)
                beside = make_tenant(f"{name}, {size_name}, beside", credit_usd="100000")  # Nothing is counted yet.
                with posting(gateway, beside.secret, content) as answered:
                    results["small_p99_ms"] = run_small(deployment, gateway, small, total)
                results["answered"] = len(answered)
                found.setdefault(size_name, {})[name] = results
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    return {"small_p99_ms": statistics.median(alone), "small_connections": SMALL_CONNECTIONS, "shapes": found}


def run_small(deployment: Deployment, gateway: Program, requests: Path, total: int) -> float:
    """Return p99 in ms."""
    load = deployment.run_module(
        "bench.load", "--port", str(gateway.port), "--connections", str(SMALL_CONNECTIONS), "--total", str(total),
        "--requests", str(requests),
    )  # fmt: skip
    return float(load["p99_ms"])


def measure_alone(gateway: Program, secret: str, content: bytes) -> Results:
    """Return the least CPU of some posts, the most memory, and the median of the longest waits."""
    cpu, peak, stall = [], [], []
    for _ in range(TIMES_ALONE):
        time.sleep(PAUSE_SECONDS)
        resident = resident_mib(gateway.pid, "VmRSS")
        Path(f"/proc/{gateway.pid}/clear_refs").write_text(CLEAR_PEAK)
        before = cpu_ms(gateway.pid)
        status = post(gateway.port, secret, content)
        time.sleep(PAUSE_SECONDS)
        cpu.append(cpu_ms(gateway.pid) - before)
        peak.append(resident_mib(gateway.pid, "VmHWM") - resident)
        with Probe(gateway.port) as probe:
            post(gateway.port, secret, content)
        stall.append(probe.longest_ms)
    return {
        "status": status,
        "bytes": len(content),
        "cpu_ms": min(cpu),
        "memory_mib": max(peak),
        "stall_ms": statistics.median(stall),
    }


@contextmanager
def posting(gateway: Program, secret: str, content: bytes) -> Iterator[list[int]]:
    """Post the body again and again; the statuses so far are in the list."""
    statuses: list[int] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            statuses.append(post(gateway.port, secret, content))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


def post(port: int, secret: str, content: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS)
    headers = {"x-api-key": secret, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/messages", body=content, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Probe:
    """Asks for nothing over one connection, again and again, and remembers its longest wait."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask_for_ever)
        self.longest_ms = 0.0

    def __enter__(self) -> "Probe":
        self._ask()  # Connected before it counts.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._connection.close()

    def _ask(self) -> None:
        self._connection.request("GET", "/v1/models")
        self._connection.getresponse().read()

    def _ask_for_ever(self) -> None:
        while not self._is_over.is_set():
            started = time.perf_counter()
            self._ask()
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - started) * 1000)
            time.sleep(PROBE_SECONDS)


def resident_mib(pid: int, name: str) -> float:
    """Return VmRSS, the resident memory, or VmHWM, its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(name + ":")]
    return int(line.split()[1]) / 1024

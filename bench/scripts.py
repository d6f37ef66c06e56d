"""`python -m bench.scripts`: CPU of Redis for the two scripts of a request, ADMIT and CLOSE.

With `--against COMMIT` the scripts of a former commit take turns with those of the working tree on the same Redis, so
that a noisy moment hits both. A script that returns at once, with the same keys and arguments, shows what a call costs.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from bench.deployment import ROOT
from bench.process_cpu import cpu_ms
from bench.report import ms, say, table
from billing.admission.calls import admit, close, publish, rebuild
from billing.admission.calls.publish import Publication
from billing.admission.calls.script_call import ScriptCall
from billing.admission.hold import Hold
from billing.admission.redis.script import make_script
from billing.admission.redis_keys import PREFIXES
from billing.admission.scripts import put_in_front
from billing.request_id import make_request_id
from crossmodel_site.embedded import RedisServer

AT_ONCE = 400
REQUESTS = 1_600
ROUNDS = 15
ORGANIZATION, KEY = 1, 1
EVENT = b"e" * 700  # As long as a usage event is.
NOW, EMPTY = "now", "a script that returns at once"
USUAL = {"status": "active", "requests_per_minute": 100_000_000, "concurrent_requests": 1_000_000}
ALL_LIMITS = USUAL | {
    "input_tokens_per_minute": 10**12,
    "output_tokens_per_minute": 10**12,
    "daily_budget": 10**17,
    "weekly_budget": 10**17,
    "monthly_budget": 10**17,
}
LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "limits that every organization has": (USUAL, {"status": "active"}),
    "every limit there is, on both": (ALL_LIMITS, ALL_LIMITS),
}
Texts = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the CPU of Redis for the scripts of one request.")
    parser.add_argument("--against", metavar="COMMIT", help="also measure the scripts of this commit, in turns")
    options = parser.parse_args()
    versions = {NOW: _texts_now(), EMPTY: {"admit": "return {'ADMITTED'}", "close": "return {'CLOSED'}"}}
    if options.against:
        versions[options.against] = _texts_of(options.against)
    with tempfile.TemporaryDirectory(prefix="crossmodel-bench-") as folder:
        server = RedisServer(Path(folder), durable=False)
        server.start()
        try:
            client = redis.Redis.from_url(server.url)
            for name, (org, key) in LIMITS.items():
                _show(name, _measure(client, server.pid, versions, org, key))
        finally:
            server.stop()


def _measure(
    client: redis.Redis, pid: int, versions: dict[str, Texts], org: dict[str, Any], key: dict[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """Return microseconds of CPU for each call, by version and script."""
    _open(client, org, key)
    found: dict[str, dict[str, list[float]]] = {name: {"admit": [], "close": []} for name in versions}
    for number in range(ROUNDS + 1):
        for name, texts in versions.items():
            spent = {"admit": 0.0, "close": 0.0}
            for _ in range(REQUESTS // AT_ONCE):
                holds = [_make_hold() for _ in range(AT_ONCE)]
                spent["admit"] += _run(client, pid, [(texts["admit"], _admit(hold)) for hold in holds])
                spent["close"] += _run(client, pid, [(texts["close"], _close(hold)) for hold in holds])
            client.xtrim(PREFIXES[ORGANIZATION] + "usage", maxlen=0)
            client.delete(PREFIXES[ORGANIZATION] + "usage:count")
            if number:  # The first round loads the scripts.
                for script, total in spent.items():
                    found[name][script].append(total * 1000 / REQUESTS)
    return found


def _run(client: redis.Redis, pid: int, calls: list[tuple[str, ScriptCall]]) -> float:
    pipeline = client.pipeline(transaction=False)
    for text, call in calls:
        script = make_script("", text)
        pipeline.evalsha(script.sha1, len(call.keys), *call.keys, *call.args)
    before = cpu_ms(pid)
    try:
        replies = pipeline.execute()
    except redis.exceptions.NoScriptError:
        client.script_load(calls[0][0])
        return _run(client, pid, calls)
    spent = cpu_ms(pid) - before
    if any(reply[0] not in (b"ADMITTED", b"CLOSED") for reply in replies):
        raise RuntimeError(f"Redis answered {replies[0]}")
    return spent


def _open(client: redis.Redis, org: dict[str, Any], key: dict[str, Any]) -> None:
    """Build the shard, open it, and publish an organization and its key."""

    def run(call: ScriptCall) -> Any:
        return client.eval(call.script.text, len(call.keys), *call.keys, *call.args)

    epoch = rebuild.read_reply(run(rebuild.make_call(PREFIXES[ORGANIZATION], reopen_ms=0))).epoch
    day = int(time.time()) // 86_400
    for member, config, credit in ((f"org:{ORGANIZATION}", org, 10**17), (f"key:{KEY}", key, None)):
        facts = config if credit is not None else {**config, "organization": ORGANIZATION}
        run(publish.make_call(Publication(ORGANIZATION, member, int(time.time()), facts, day, credit, 1), epoch=epoch))


def _make_hold() -> Hold:
    return Hold(make_request_id().hex, ORGANIZATION, KEY, 2_000_000, 500, 1_000, EVENT, day=int(time.time()) // 86_400)


def _admit(hold: Hold) -> ScriptCall:
    return admit.make_call(hold, key_config_version=2**40, lease_ms=60_000, max_waiting_events=100_000)


def _close(hold: Hold) -> ScriptCall:
    return close.make_call(hold, cost_nanos=1_000_000, event=EVENT, input_tokens=300, output_tokens=200)


def _texts_now() -> Texts:
    return {"admit": admit.SCRIPT.text, "close": close.SCRIPT.text}


def _texts_of(commit: str) -> Texts:
    def read(name: str) -> str:
        path = f"{commit}:billing/admission/{name}"
        return subprocess.run(["git", "show", path], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    shared = read("lua/_common.lua")
    # All of the shared part stood in front of each script once.
    join = put_in_front if "put_in_front" in read("scripts.py") else "{}\n{}".format
    return {name: join(shared, read(f"lua/{name}.lua")) for name in ("admit", "close")}


def _show(title: str, found: dict[str, dict[str, list[float]]]) -> None:
    def median(version: str, of: Callable[[dict[str, list[float]]], list[float]]) -> float:
        return statistics.median(of(found[version]))

    rows = []
    now = median(NOW, _both)
    for name, scripts in found.items():
        both = _both(scripts)
        rows.append(
            [
                name,
                ms(median(name, lambda each: each["admit"])),
                ms(median(name, lambda each: each["close"])),
                f"{statistics.median(both):.1f} ({min(both):.1f} - {max(both):.1f})",
                f"{statistics.median(both) / now:.2f}",
            ]
        )
    table([f"{title}: us of CPU of Redis", "ADMIT", "CLOSE", "both (rounds)", "x now"], rows)
    say("")


def _both(scripts: dict[str, list[float]]) -> list[float]:
    return [one + other for one, other in zip(scripts["admit"], scripts["close"], strict=True)]


if __name__ == "__main__":
    main()

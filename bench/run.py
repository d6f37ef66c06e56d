"""`make bench`: measures everything in one run, prints a table, and keeps the results in var/bench/<time>.json."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import django

from bench import report
from bench.deployment import ROOT, Deployment
from bench.open_files import allow_files

SECTIONS = ("requests", "streams", "many-streams", "steps", "settlement", "overdraft", "rebuild", "bodies", "idle")
# Asked for by name only: these take long.
LONG = ("latency", "stream-limits", "settlement-shapes", "settlement-growth")
PEERS = "peers"  # Asked for by name only: it installs other people's programs.


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a request costs. docs/speed.md explains the results.")
    parser.add_argument("--only", nargs="+", choices=(*SECTIONS, *LONG, PEERS), default=SECTIONS, metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds; for a first look")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "quick": options.quick,
    }
    started = time.monotonic()
    allow_files()
    with tempfile.TemporaryDirectory(prefix="crossmodel-bench-") as folder:
        deployment = Deployment(Path(folder))
        try:
            deployment.start_servers()
            set_up_django(deployment)
            open_admission()
            for name in options.only:
                report.say(f"\n== {name}")
                results[name] = _section(name)(deployment, options.quick)
                report.show(name, results[name])
        finally:  # Also what was measured before something failed.
            deployment.stop()
            results["took_seconds"] = round(time.monotonic() - started)
            path = _keep(results)
    report.say(f"\nKept in {path.relative_to(ROOT)}; took {results['took_seconds']} s.")
    return 0


def _keep(results: dict[str, Any]) -> Path:
    path = ROOT / "var" / "bench" / f"{results['time'].replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path


def _section(name: str) -> Callable[[Deployment, bool], dict[str, Any]]:
    # Only now: what they use can be imported once Django is set up.
    module, function = ("requests", "measure_streams") if name == "streams" else (name.replace("-", "_"), "measure")
    measure: Callable[[Deployment, bool], dict[str, Any]] = getattr(import_module(f"bench.{module}"), function)
    return measure


def set_up_django(deployment: Deployment) -> None:
    environment = deployment.environment
    os.environ.clear()
    os.environ.update(environment)
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    django.setup()


def open_admission() -> None:
    from bench.requests import wait_until_open

    wait_until_open()


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

"""Other gateways under the same load, in turns with ours: `make bench PEERS=1` installs them into var/peers.

They proxy only: no balance is debited, no hold is made, nothing is settled. Each gets the request that ours gets, with
its own way to say where it goes; what each spends is the CPU of its process and that of its children.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.deployment import ROOT, Deployment, Program
from bench.requests import CONNECTIONS, NGINX_AS_IT_COMES, make_tenants, measure_cpu, wait_until_settled
from bench.tenants import MODEL, request_text, write_requests

FOLDER = ROOT / "var" / "peers"
LITELLM, PORTKEY = "litellm[proxy]==1.108.7", "@portkey-ai/gateway@1.15.2"
MASTER_KEY = "sk-for-benchmarks-only"
ROUNDS, QUICK_ROUNDS = 5, 2
WARM_UP_SHARE = 4  # So many times fewer requests than in a round.
# Fast ones serve more in a round, so that each has some seconds of it.
REQUESTS, REQUESTS_OF_SLOW = 4_000, 400
QUICK_SHARE = 4
INSTALL_SECONDS = 900.0


class Peer(NamedTuple):
    """`program` is None where it could not be installed or started; `why` says so."""

    program: Program | None
    requests: Path
    total: int
    why: str = ""


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return CPU in ms per request by gateway and round, and how many requests a second each served."""
    upstream, gateway, worker = deployment.start_upstream(), deployment.start_gateway(), deployment.start_worker()
    ours = write_requests(deployment.folder / "peers.json", make_tenants("peers"))
    peers = {
        "CrossModel, billed": Peer(gateway, ours, REQUESTS),
        "nginx": Peer(deployment.start_nginx("nginx", keeps_connections=True), ours, REQUESTS, "not installed"),
        NGINX_AS_IT_COMES: Peer(
            deployment.start_nginx("nginx-as-it-comes", keeps_connections=False), ours, REQUESTS, "not installed"
        ),
        "Portkey": _portkey(deployment),
        "LiteLLM": _litellm(deployment, "litellm"),
        "LiteLLM, LITELLM_RUST": _litellm(deployment, "litellm-rust", {"LITELLM_RUST": "true"}),
    }
    running = {name: peer for name, peer in peers.items() if peer.program is not None}
    samples: dict[str, list[float]] = {name: [] for name in running}
    loads: dict[str, list[dict[str, Any]]] = {name: [] for name in running}
    share = QUICK_SHARE if quick else 1
    try:
        for peer in running.values():
            _take_round(deployment, peer, peer.total // WARM_UP_SHARE)
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            for name, peer in running.items():
                total = peer.total // share
                spent, load = _take_round(deployment, peer, total)
                samples[name].append(spent / total)
                loads[name].append(load)
        wait_until_settled()
    finally:
        for program in (*(peer.program for peer in running.values()), worker, upstream):
            if program is not None:
                program.stop()
    return {
        "connections": CONNECTIONS,
        "versions": {"LiteLLM": LITELLM, "Portkey": PORTKEY},
        "cpu_ms": samples,
        "per_second": {name: [load["per_second"] for load in each] for name, each in loads.items()},
        "p50_ms": {name: [load["p50_ms"] for load in each] for name, each in loads.items()},
        "missing": {name: peer.why for name, peer in peers.items() if peer.program is None},
    }


def _take_round(deployment: Deployment, peer: Peer, total: int) -> tuple[float, dict[str, Any]]:
    assert peer.program is not None
    return measure_cpu(deployment, peer.program, peer.requests, connections=CONNECTIONS, total=total)


def _portkey(deployment: Deployment) -> Peer:
    path = deployment.folder / "portkey.json"
    to = f"x-portkey-provider: anthropic\r\nx-portkey-custom-host: http://127.0.0.1:{deployment.upstream_port}/v1\r\n"
    path.write_text(json.dumps([request_text("none").replace("x-api-key:", to + "x-api-key:")]))
    if shutil.which("npm") is None:
        return Peer(None, path, 0, "npm is not installed")
    folder = FOLDER / "portkey"
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PORTKEY]
    if why := _install(command, folder / "node_modules" / "@portkey-ai" / "gateway" / "package.json", PORTKEY):
        return Peer(None, path, 0, why)
    server = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    program = deployment.start_peer(
        "portkey", ["node", str(server), "--headless", "--port={port}"], {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    )
    return Peer(program, path, REQUESTS)


def _litellm(deployment: Deployment, name: str, variables: Mapping[str, str] | None = None) -> Peer:
    path = deployment.folder / "litellm.json"
    path.write_text(json.dumps([request_text(MASTER_KEY)]))
    folder = FOLDER / "litellm"
    uv = str(Path(sys.executable).parent / "uv")
    installed = folder / "bin" / "litellm"
    if not installed.exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", str(folder)], check=True, timeout=INSTALL_SECONDS)
    command = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), LITELLM]
    if why := _install(command, installed, LITELLM):
        return Peer(None, path, 0, why)
    config = deployment.folder / "litellm.yaml"
    parameters = {
        "model": "anthropic/claude-sonnet-4-5-20250929",
        "api_base": f"http://127.0.0.1:{deployment.upstream_port}",
        "api_key": "none",
    }
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
                "general_settings": {"master_key": MASTER_KEY},
                "litellm_settings": {"telemetry": False},
            }
        )
    )
    command = [str(installed), "--config", str(config), "--host", "127.0.0.1", "--port", "{port}"]
    program = deployment.start_peer(name, command, {"LITELLM_LOCAL_MODEL_COST_MAP": "True", **(variables or {})})
    return Peer(program, path, REQUESTS_OF_SLOW)


def _install(command: list[str], made: Path, what: str) -> str:
    """Install what is not there yet; return why it could not be, "" when it is there."""
    note = made.parent / ".installed"
    if made.exists() and note.exists() and note.read_text() == what:
        return ""
    answer = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if answer.returncode or not made.exists():
        return f"{what} could not be installed: {answer.stderr.strip()[-300:]}"
    note.write_text(what)
    return ""

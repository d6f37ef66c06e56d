"""Which clients are tested, in which version, and what each of them does: tests and docs/api.md are made from this."""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.install import NODE_FOLDER, environment_python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DRIVERS = HERE / "drivers"
MODEL = "anthropic/claude-sonnet-4.6"

# Columns of the table: what a client is asked to do, or which answer it is given.
WORK = ("create", "stream", "tools", "thinking")
ERRORS = {"401": 401, "402": 402, "404": 404, "429": 429, "529": 503}  # What happened, and the status we answer.
BROKEN_STREAM = "broken stream"
FEATURES = (*WORK, BROKEN_STREAM, *ERRORS)


@dataclass(frozen=True)
class Client:
    """One client in one version. `driver` starts the process that speaks for it; see client_process.py."""

    name: str  # In test ids.
    title: str
    package: str  # As its lock names it.
    lock: Path
    driver: tuple[str, ...]
    model: str = MODEL
    # Needs an environment of its own: run by `make test-clients` only.
    is_installed_apart: bool = True
    # Statuses that the client itself tells for ours.
    tells: dict[int, int] = field(default_factory=dict)

    @property
    def version(self) -> str:
        text = self.lock.read_text()
        if self.lock.suffix == ".json":
            version: str = json.loads(text)["packages"][f"node_modules/{self.package}"]["version"]
            return version
        found = re.search(rf"^{re.escape(self.package)}(?:\[\w+\])?==(\S+)", text, re.MULTILINE)
        assert found, f"{self.lock.name} does not name {self.package}"
        return found.group(1)


def python_driver(environment: str, script: str) -> tuple[str, ...]:
    return str(environment_python(environment)), str(DRIVERS / script)


def node_driver(script: str, *arguments: str) -> tuple[str, ...]:
    return "node", str(NODE_FOLDER / script), *arguments


CLAUDE = NODE_FOLDER / "node_modules/@anthropic-ai/claude-code/bin/claude.exe"
CLAUDE_NODE_20 = NODE_FOLDER / "node_modules/claude-code-node-20/bin/claude.exe"
NODE_LOCK = HERE / "node/package-lock.json"
FRAMEWORKS_LOCK = HERE / "requirements/frameworks.lock"

CLIENTS = (
    Client(
        "anthropic-python-2", "anthropic for Python", "anthropic", ROOT / "requirements.lock",
        (sys.executable, str(DRIVERS / "anthropic_sdk.py")), is_installed_apart=False,
    ),
    Client(
        "anthropic-python-0", "anthropic for Python", "anthropic", HERE / "requirements/anthropic-0.lock",
        python_driver("anthropic-0", "anthropic_sdk.py"),
    ),
    Client(
        "anthropic-node-1", "@anthropic-ai/sdk", "@anthropic-ai/sdk", NODE_LOCK,
        node_driver("anthropic_sdk.mjs", "@anthropic-ai/sdk"),
    ),
    Client(
        "anthropic-node-0", "@anthropic-ai/sdk", "anthropic-sdk-0", NODE_LOCK,
        node_driver("anthropic_sdk.mjs", "anthropic-sdk-0"),
    ),
    Client(
        "claude-code", "Claude Code (`claude -p`)", "@anthropic-ai/claude-code", NODE_LOCK,
        (sys.executable, str(DRIVERS / "claude_code.py"), str(CLAUDE)), model="claude-sonnet-4-6",
    ),
    Client(  # What npm gives for Node 20, which is still in use.
        "claude-code-node-20", "Claude Code (`claude -p`)", "claude-code-node-20", NODE_LOCK,
        (sys.executable, str(DRIVERS / "claude_code.py"), str(CLAUDE_NODE_20)), model="claude-sonnet-4-6",
    ),
    Client(
        "litellm", "litellm", "litellm", FRAMEWORKS_LOCK, python_driver("frameworks", "litellm_client.py"),
        # It takes off the provider's name, and tells every 5xx as 500.
        model="anthropic/claude-sonnet-4-6", tells={503: 500},
    ),
    Client(
        "langchain", "langchain-anthropic", "langchain-anthropic", FRAMEWORKS_LOCK,
        python_driver("frameworks", "langchain_client.py"),
    ),
    Client(
        "pydantic-ai", "pydantic-ai", "pydantic-ai-slim", FRAMEWORKS_LOCK,
        python_driver("frameworks", "pydantic_ai_client.py"),
    ),
    Client("ai-sdk", "@ai-sdk/anthropic", "@ai-sdk/anthropic", NODE_LOCK, node_driver("ai_sdk.mjs")),
)  # fmt: skip


def render_table() -> str:
    """Return the table of docs/api.md: one row for each client; every cell is a test."""
    rows = [
        ["client", "version", *FEATURES, "run by"],
        ["---"] * (len(FEATURES) + 3),
        *(
            [
                client.title,
                client.version,
                *("yes" for _ in FEATURES),
                "`make test-clients`" if client.is_installed_apart else "`make test`",
            ]
            for client in CLIENTS
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)

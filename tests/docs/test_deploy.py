"""The files of deploy/ start processes alike, with settings and metrics that there are; see `make check-deploy` too."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/crossmodel"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
# Where a process listens and what it writes differ from place to place, and so does how much it does at once.
OF_THE_PLACE = {"host", "port", "uds", "schedule", "concurrency", "pool", "loglevel"}
PROCESSES = ["gateway", "pages", "worker", "beat"]
NAME = re.compile(
    r"^\s*-? ?(?:name: )?((?:CROSSMODEL|OTEL)_[A-Z_]+|DJANGO_SECRET_KEY|DATABASE_URL|REDIS_URL|CELERY_BROKER_URL)\b",
    re.M,
)


def flags_of(command: list[str]) -> dict[str, str]:
    """Return what a command is told, in whichever of its two forms, but for what differs from place to place."""
    flags: dict[str, str] = {}
    words = [word for part in command for word in part.split("=", 1)]
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("-"):
            name = {"-A": "app"}.get(word, word.lstrip("-"))
            flags[name] = "" if following.startswith("-") else following
    return {name: value for name, value in flags.items() if name not in OF_THE_PLACE}


def unit_of(process: str) -> str:
    return (DEPLOY / f"crossmodel-{process}.service").read_text()


def flags_in_chart(process: str) -> dict[str, str]:
    text = (CHART / f"templates/{'gateway' if process == 'pages' else process}.yaml").read_text()
    text = text.partition(f"- name: {process}\n")[2]
    listed = re.search(r"args: \[(.*)\]", text)
    lines = re.search(r"args:\n((?: +- .*\n)+)", text)
    if listed is not None and (lines is None or listed.start() < lines.start()):
        return flags_of(listed[1].split(", "))
    assert lines is not None
    return flags_of([line.strip().removeprefix("- ") for line in lines[1].splitlines()])


@pytest.mark.parametrize("process", PROCESSES)
def test_every_place_starts_a_process_alike(process: str) -> None:
    started = re.search(r"^ExecStart=(.*)$", unit_of(process), re.MULTILINE)
    assert started is not None
    flags = flags_of(shlex.split(started[1])[1:])
    assert flags
    assert flags_in_chart(process) == flags
    image = (DEPLOY / "Containerfile").read_text().partition("CMD ")[2].replace("\\\n", "")
    command = COMPOSE[process].get("command")
    assert flags_of(shlex.split(command) if command else yaml.safe_load(image)) == flags


def test_settings_are_those_of_the_document() -> None:
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))
    named = {*VALUES["settings"], *NAME.findall(TEMPLATES), *NAME.findall((DEPLOY / "compose.yaml").read_text())}
    named |= {line.partition("=")[0] for line in (DEPLOY / "crossmodel.env").read_text().splitlines()}
    assert {"CROSSMODEL_PAGES", "CROSSMODEL_DATA", "DATABASE_URL", "REDIS_URL"} <= named
    assert {name for name in named - documented if not name.endswith("_API_KEY")} == set()


def test_scaling_asks_for_what_is_counted() -> None:
    documented = set(re.findall(r"`(crossmodel_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    asked = set(re.findall(r"query: \w+\((\w+)\)", TEMPLATES))
    assert asked
    assert asked <= documented


def test_a_gateway_has_as_long_to_stop_everywhere() -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", unit_of("gateway"), re.MULTILINE)
    assert seconds is not None
    assert VALUES["gateway"]["stopSeconds"] == int(seconds[1])
    assert COMPOSE["gateway"]["stop_grace_period"] == f"{int(seconds[1]) // 60}m"

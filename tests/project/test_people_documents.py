"""README, CONTRIBUTING and SECURITY keep their word: their commands can be run, and what they name is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
COMMAND_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`([\w.-]+/[\w./-]*)`")
PYTHON, MANAGE = ".venv/bin/python", "manage.py"


def commands_of(document: str) -> list[str]:
    blocks = COMMAND_BLOCK.findall((ROOT / document).read_text())
    return [line for block in blocks for line in block.splitlines()]


COMMANDS = sorted({command for document in DOCUMENTS for command in commands_of(document)})


def is_slow(command: str) -> bool:
    return "pytest" in command  # Which reads all of the tests to find those that are meant.


@pytest.mark.parametrize(
    "command", [pytest.param(each, marks=[pytest.mark.long] if is_slow(each) else []) for each in COMMANDS]
)
def test_a_command_could_be_run(command: str) -> None:
    """Without running it: make only plans, pytest only collects, manage.py only reads the arguments."""
    match shlex.split(command):
        case ["make", *_] as words:
            assert run([*words, "--dry-run"]) == ""
        case [program, "-m", "pytest", *arguments] if program == PYTHON:
            run([sys.executable, "-m", "pytest", "--collect-only", *arguments])
        case [program, script, name, *arguments] if (program, script) == (PYTHON, MANAGE):
            app = get_commands()[name]
            parser = load_command_class(app, name).create_parser(MANAGE, name) if isinstance(app, str) else None
            assert parser is not None
            parser.parse_args(arguments)
        case words:
            pytest.fail(f"No test knows how to try {words}.")


def run(words: list[str]) -> str:
    """Return what the command wrote to stderr; fail when it did not end well."""
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_ours_stands_in_a_block_that_is_tried(document: str) -> None:
    assert commands_of(document)


def test_every_path_that_is_named_is_there() -> None:
    named = {path for document in DOCUMENTS for path in PATH.findall((ROOT / document).read_text())}
    assert len(named) > 20
    assert {path for path in named if not (ROOT / path).exists()} == set()

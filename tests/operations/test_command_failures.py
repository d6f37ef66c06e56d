"""A command that cannot work says why in one line: a newcomer types it while nothing runs, or with a wrong setting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodel_site.embedded import find_free_port
from tests.support.local_run import ROOT, clean_environment


def run_and_fail(folder: Path, *arguments: str, **variables: str) -> str:
    """Return the one line that the command complained with."""
    answer = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=clean_environment({"CROSSMODEL_DATA": str(folder), **variables}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (1, "")
    [line] = answer.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "arguments",
    [["check_ledger"], ["grant_credit", "demo", "5", "--reason", "r"], ["load_catalog"], ["margin"], ["migrate"]],
    ids=lambda arguments: arguments[0],
)
def test_a_command_without_postgres(tmp_path: Path, arguments: list[str]) -> None:
    address = f"postgresql://crossmodel:hidden-word@127.0.0.1:{find_free_port()}/crossmodel"
    line = run_and_fail(tmp_path, *arguments, DATABASE_URL=address)
    assert line.startswith("Postgres cannot be used: connection failed")
    assert "hidden-word" not in line


def test_a_command_with_a_setting_that_makes_no_sense(tmp_path: Path) -> None:
    assert run_and_fail(tmp_path, "status", PORT="eighty") == "PORT must be a whole number; it is 'eighty'."


@pytest.mark.parametrize("arguments", [["help", "--commands"], ["diffsettings", "--all"]], ids=["little", "much"])
def test_who_has_read_enough_gets_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    """As with `manage.py status | head -3`: the reader goes, before the last of it or even the first is written."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        answer = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=clean_environment({"CROSSMODEL_DATA": str(tmp_path)}),
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)
    assert answer.stderr == ""

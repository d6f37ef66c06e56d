"""The README's first command in a fresh clone, where nothing is installed: environment, servers, gateway, curl."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from crossmodel_site.embedded import find_free_port
from crossmodel_site.environment import read_env_file
from tests.support.local_run import READY_LINE, ROOT, clean_environment, descendants, wait_until_gone

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

INSTALL_SECONDS = 480.0


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, tmp_path / "crossmodel"], check=True)
    yield tmp_path / "crossmodel"
    subprocess.run(["rm", "-rf", tmp_path / "crossmodel"], check=True)


def test_make_run_in_a_fresh_clone(clone: Path) -> None:
    names = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_INDEX_URL")
    network = {name: os.environ[name] for name in names if name in os.environ}
    log_path = clone.parent / "make-run.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=clone,
            env=clean_environment({"PORT": str(find_free_port()), **network}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    started: set[int] = set()
    try:
        deadline = time.monotonic() + INSTALL_SECONDS
        while READY_LINE not in log_path.read_text() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert READY_LINE in log_path.read_text(), log_path.read_text()
        started = descendants(process.pid)
        demo = read_env_file(clone / "var" / "demo.env")
        answer = httpx.post(
            f"{demo['CROSSMODEL_BASE_URL']}/v1/messages",
            headers={"x-api-key": demo["CROSSMODEL_API_KEY"], "anthropic-version": "2023-06-01"},
            json={
                "model": "anthropic/claude-sonnet-4.6",
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "Hi"}],
            },
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        for command in ("status", "check_ledger"):
            told = subprocess.run(
                [".venv/bin/python", "manage.py", command],
                cwd=clone,
                env=clean_environment({}),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (told.returncode, told.stderr) == (0, ""), told.stdout
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert wait_until_gone(started) == set()

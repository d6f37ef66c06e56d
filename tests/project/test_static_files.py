"""Static files are served from where they are: a process started by hand needs no folder of copies, and misses none."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client

from tests.support.local_run import ROOT, clean_environment


@pytest.mark.long
def test_a_gateway_started_by_hand_warns_of_nothing(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "default", "-c", "import crossmodel_site.asgi"],
        cwd=ROOT,
        env=clean_environment({"CROSSMODEL_DATA": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, "")
    assert [line for line in answer.stderr.splitlines() if "No directory" in line] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["crossmodel.css", "icon.svg", "admin/css/base.css", "unfold/css/styles.css"])
def test_files_of_ours_and_of_packages_are_served(path: str) -> None:
    response = Client().get(f"/static/{path}")
    assert response.status_code == 200
    assert b"".join(response.streaming_content)  # type: ignore[attr-defined]  # a file is streamed

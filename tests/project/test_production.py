"""In production nothing starts half configured, and what is configured stands up to Django's own check."""

import os
import subprocess
import sys

import pytest

from tests.support.local_run import ROOT

GOOD = {
    "CROSSMODEL_PRODUCTION": "1",
    "DJANGO_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "CROSSMODEL_BASE_URL": "https://billing.example.org",
    "CROSSMODEL_ALLOWED_HOSTS": "billing.example.org",
    "CROSSMODEL_EMAIL_HOST": "mail.example.org",
    "CROSSMODEL_FROM_EMAIL": "CrossModel <no-reply@example.org>",
}


def check(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        # Settings of a local run in this checkout lie where CROSSMODEL_DATA says, which of tests is another place.
        env={"PATH": os.environ["PATH"], "CROSSMODEL_DATA": os.environ["CROSSMODEL_DATA"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_configured_installation_passes_the_check_of_django() -> None:
    answer = check(**GOOD)
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    assert "no issues" in answer.stdout


def test_all_that_is_missing_is_told_at_once() -> None:
    answer = check(CROSSMODEL_PRODUCTION="1")
    assert answer.returncode != 0
    told = answer.stderr
    assert "Traceback" not in told
    for name in ("DJANGO_SECRET_KEY", "BASE_URL", "ALLOWED_HOSTS", "EMAIL_HOST", "FROM_EMAIL"):
        assert name in told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DJANGO_SECRET_KEY", "LONG-RANDOM-TEXT", "is weak"),
        ("DJANGO_SECRET_KEY", "ab" * 40, "is weak"),
        ("CROSSMODEL_BASE_URL", "http://billing.example.org", "must be an https address"),
        ("CROSSMODEL_ALLOWED_HOSTS", "*", "must not be *"),
        ("CROSSMODEL_ALLOWED_HOSTS", "other.example.org", "must hold the host of CROSSMODEL_BASE_URL"),
        ("CROSSMODEL_EMAIL_HOST", "", "CROSSMODEL_EMAIL_HOST is not set"),
        ("CROSSMODEL_FROM_EMAIL", "me@localhost", "answers may be sent to"),
    ],
)
def test_one_weak_setting_is_one_line(name: str, value: str, told: str) -> None:
    answer = check(**{**GOOD, name: value})
    assert answer.returncode != 0
    lines = [line for line in answer.stderr.splitlines() if line.startswith("- ")]
    assert len(lines) == 1, answer.stderr
    assert told in lines[0]

"""A log line is one line and holds nothing that moves a cursor, whatever was put into it."""

import io
import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings

from crossmodel_site.logs import JsonFormatter, LineFormatter, printable
from tests.support.live_stack import ROOT

FORGED = "alice\r\n2026-01-01 00:00:00 INFO root All is well\x1b[2J\x9b\u2028\u202e\x00"


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, stream


def test_a_message_stays_one_line(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    logger.warning("Mail to %s could not be sent.", FORGED)
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert line.startswith("WARNING test Mail to alice\\r\\n2026")
    assert "\\x1b[2J\\x9b\\u2028\\u202e\\x00 could not be sent." in line


def test_the_lines_of_an_error_cannot_pass_for_ours(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception("It failed.")
    first, *rest = stream.getvalue().splitlines()
    assert first == "ERROR test It failed."
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def test_what_people_write_is_kept() -> None:
    assert printable("Zoë & 株式会社 ✓ 😀") == "Zoë & 株式会社 ✓ 😀"


def test_every_handler_writes_so() -> None:
    configuration: dict[str, Any] = settings.LOGGING
    formatters = {name: formatter.get("()") for name, formatter in configuration["formatters"].items()}
    assert set(formatters.values()) == {"crossmodel_site.logs.LineFormatter", "crossmodel_site.logs.JsonFormatter"}
    assert configuration["loggers"]["uvicorn"]["handlers"] == ["console"]


def test_a_json_line_is_one_object_with_what_is_known() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(FORGED + "\ud800")
    except ValueError:
        logger.exception("Request %s failed.", "0a" * 16, extra={"organization": 7})
    [line] = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["message"]) == ("ERROR", f"Request {'0a' * 16} failed.")
    assert (fields["request_id"], fields["organization"]) == ("0a" * 16, 7)
    assert "ValueError: alice" in fields["traceback"]
    assert fields["time"].endswith("Z")


def test_workers_write_in_the_same_form_whoever_speaks() -> None:
    says = "\n".join(
        [
            "import django",
            "from crossmodel_site.celery import app",
            "django.setup()",
            "app.log.setup(loglevel='WARNING')",
            "from billiard.util import get_logger",
            "from celery.utils.log import get_task_logger",
            "get_logger().error('A process ended.')",
            "get_task_logger('billing').warning('A task says this.')",
        ]
    )
    ended = subprocess.run(
        [sys.executable, "-c", says],
        cwd=ROOT,
        env={**os.environ, "CROSSMODEL_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["A process ended.", "A task says this."]
    assert not ended.stdout

"""Sends one webhook over HTTP, within bounds, and says in words what came of it."""

import time
from collections.abc import Mapping

from django.conf import settings

from billing.webhooks.deliveries import MAX_ANSWER_CHARS, Answer
from operations.judged_http import Bounds, NoAnswerError, Resolve, exchange

TOTAL_SECONDS = 15.0
MAX_ANSWER_BYTES = 64 * 1024
HEADERS = {"user-agent": "CrossModel-Webhooks/1", "content-type": "application/json"}


def send_webhook(url: str, *, body: bytes, headers: Mapping[str, str], resolve: Resolve | None = None) -> Answer:
    """POST the body and return what came of it. Raises nothing: every failure is an answer with a problem."""
    started = time.monotonic()
    bounds = Bounds(tuple(settings.WEBHOOK_NETWORKS), TOTAL_SECONDS, MAX_ANSWER_BYTES)
    status, text = None, ""
    try:
        status, answered = exchange(
            "POST", url, headers={**HEADERS, **headers}, body=body, bounds=bounds, resolve=resolve
        )
        text = answered.decode("utf-8", "replace")[:MAX_ANSWER_CHARS]
        problem = _problem_of(status)
    except NoAnswerError as error:
        problem = str(error)
    return Answer(status, problem, text, int((time.monotonic() - started) * 1000))


def _problem_of(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"It answered {status}: redirects are not followed."
    return f"It answered {status}."

"""What every Python driver does: read jobs from standard input, answer each with one line of JSON.

A driver runs in an environment of its own, where only its client is installed, so this module imports nothing else.
Jobs and answers are described in tests/clients/client_process.py.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Job = Mapping[str, Any]
Answer = dict[str, Any]
Feature = Callable[[Job], Answer]


def serve(features: Mapping[str, Feature]) -> None:
    """Answer jobs until standard input ends. What a client prints goes to standard error."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = features[job["feature"]](job)
        except Exception as error:
            answer = {"error": describe(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def describe(error: BaseException) -> Answer:
    """Return an error's class, its HTTP status where the client tells it, and its text."""
    status = getattr(error, "status_code", None)
    return {"class": type(error).__name__, "status": status if isinstance(status, int) else None, "message": str(error)}

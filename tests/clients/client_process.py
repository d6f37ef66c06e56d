"""A client in a process of its own, with its own packages: jobs go in, answers come out, one line of JSON each.

A job names the feature and all that a user of CrossModel would change: the base URL and the key; and the model and the
text. An answer says what the client made of it: `text`, `thinking`, `stop_reason`, `prompt_tokens`, `output_tokens`,
for streams `pieces`, for tools `tool`; or `error` with `class`, `status` and `message`.
"""

import json
import os
import selectors
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.matrix import Client
from tests.support.live_stack import LiveStack

ANSWER_SECONDS = 90.0
# What would make a client speak to anyone but the gateway.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "NO_COLOR": "1",
}
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class ClientProcess:
    def __init__(self, client: Client, log: Path) -> None:
        self._client = client
        self._log = log
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                client.driver,
                env={**environment, **QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def ask(self, stack: LiveStack, feature: str, *, key: str, text: str = "Hello!", **fields: Any) -> dict[str, Any]:
        """Let the client do one thing and return its answer. Fails when it does not answer in time."""
        job = {
            "feature": feature,
            "base_url": stack.base_url,
            "key": key,
            "model": self._client.model,
            "text": text,
            **fields,
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(ANSWER_SECONDS), f"{self._client.name} gave no answer.\n{self._log.read_text()}"
        line = self._process.stdout.readline()
        assert line, f"{self._client.name} ended.\n{self._log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

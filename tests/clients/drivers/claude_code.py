"""Claude Code in print mode: `claude -p`, with a home of its own and nothing set but the base URL and the key."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loop import Answer, Job, serve

CLAUDE = sys.argv[1]
RUN_SECONDS = 80
VARIABLES = {"api_key": "ANTHROPIC_API_KEY", "auth_token": "ANTHROPIC_AUTH_TOKEN"}


class PrintModeError(Exception):
    def __init__(self, result: Any) -> None:
        super().__init__(result.get("result"))
        self.status_code = result.get("api_error_status")


def create(job: Job) -> Answer:
    return read(run(job, "--output-format", "json"))


def stream(job: Job) -> Answer:
    events = run(job, "--output-format", "stream-json", "--verbose", "--include-partial-messages")
    pieces = [event["event"]["delta"]["text"] for event in events if is_text_delta(event)]
    answer = read(events)
    assert answer["text"] == "".join(pieces)
    return {**answer, "pieces": len(pieces)}


def tools(job: Job) -> Answer:
    events = run(job, "--output-format", "stream-json", "--verbose", "--allowedTools", "Bash")
    [(used, reason)] = [
        (block, event["message"]["stop_reason"])
        for event in events
        if event["type"] == "assistant"
        for block in event["message"]["content"]
        if block["type"] == "tool_use"
    ]
    # Whole messages are printed before their end is known, so the reason is that of the API's own event.
    return {**read(events), "tool": {"name": used["name"], "input": used["input"], "stop_reason": reason or "tool_use"}}


def thinking(job: Job) -> Answer:
    return read(run(job, "--output-format", "stream-json", "--verbose"))


def run(job: Job, *options: str) -> list[Any]:
    """Run `claude -p` and return what it printed: its events, of which the last is the result."""
    with tempfile.TemporaryDirectory() as home:
        # The sandbox calls Bash with the command "sandbox".
        command = Path(home, "bin/sandbox")
        command.parent.mkdir()
        command.write_text("#!/bin/sh\necho sunny\n")
        command.chmod(0o755)
        model = ["--model", job["model"]] if job["model"] else []
        done = subprocess.run(
            [CLAUDE, "-p", job["text"], *model, *options],
            env={
                "PATH": f"{command.parent}:/usr/local/bin:/usr/bin:/bin",
                "HOME": home,
                "ANTHROPIC_BASE_URL": job["base_url"],
                VARIABLES[job.get("auth", "api_key")]: job["key"],
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_MAX_RETRIES": str(job.get("retries", 0)),
                **job.get("environment", {}),
            },
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    result = events[-1] if events else {"result": f"it ended with {done.returncode} and printed {done.stdout!r}"}
    if done.returncode or result.get("is_error", True):
        raise PrintModeError(result)
    return events


def read(events: list[Any]) -> Answer:
    result = events[-1]
    blocks = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
    usage = result["usage"]
    return {
        "model": ",".join(result["modelUsage"]),
        "text": result["result"],
        "thinking": "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        "stop_reason": result["stop_reason"],
        "prompt_tokens": usage["input_tokens"]
        + usage["cache_creation_input_tokens"]
        + usage["cache_read_input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cost_usd": result["total_cost_usd"],
    }


def is_text_delta(event: Any) -> bool:
    return bool(event["type"] == "stream_event" and event["event"].get("delta", {}).get("type") == "text_delta")


if __name__ == "__main__":
    serve({"create": create, "stream": stream, "tools": tools, "thinking": thinking})

"""What a local run prints."""

import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

# The public reference's own request.
EXAMPLE_BODY = """{
    "model": "anthropic/claude-sonnet-4.6",
    "max_tokens": 1024,
    "system": "You are a helpful assistant.",
    "messages": [
      { "role": "user", "content": "Hello!" }
    ]
  }"""
WIDTH = 100


def say(line: str) -> None:
    """Print a line at once. When nobody reads any more (the terminal was closed), go on in silence."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  Open for as long as the process lives.


def complain(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(line + "\n")


def render_screen(
    demo: Mapping[str, str],
    *,
    credentials_set: Sequence[str],
    credentials_known: Sequence[str],
    stop_hint: str,
    payments_url: str,
) -> str:
    """Return the screen that ends the start: where things are, who signs in, and a request to paste."""
    base_url = demo["CROSSMODEL_BASE_URL"]
    if credentials_set:
        answers = (
            f"Requests go to real providers and cost you money, because {' and '.join(credentials_set)} "
            f"{'is' if len(credentials_set) == 1 else 'are'} set. The sandbox answers for all other models."
        )
    else:
        answers = (
            "The sandbox answers, not a real model, because no provider's key is set. "
            f"To reach a real one, stop and start with {' or '.join(credentials_known) or 'its key'} set."
        )
    return "\n".join(
        [
            "",
            "CrossModel is running.",
            "",
            f"  Console  {base_url}/console/",
            f"           {demo['CROSSMODEL_CONSOLE_EMAIL']}   {demo['CROSSMODEL_CONSOLE_PASSWORD']}",
            f"  Admin    {base_url}/admin/",
            f"           {demo['CROSSMODEL_ADMIN_EMAIL']}   {demo['CROSSMODEL_ADMIN_PASSWORD']}",
            f"  Payments {payments_url}/   refunds and disputes of sandbox payments; no real money",
            f"  API key  {demo['CROSSMODEL_API_KEY']}",
            "",
            "Try it:",
            "",
            render_curl(base_url, demo["CROSSMODEL_API_KEY"]),
            "",
            textwrap.fill(answers, WIDTH),
            stop_hint,
            "",
        ]
    )


def render_curl(base_url: str, key: str) -> str:
    """Return the public reference's example, to this address and with this key."""
    return " \\\n".join(
        [
            f"curl {shlex.quote(base_url + '/v1/messages')}",
            '  -H "Content-Type: application/json"',
            '  -H "anthropic-version: 2023-06-01"',
            f'  -H "x-api-key: {key}"',
            f"  -d '{EXAMPLE_BODY}'",
        ]
    )

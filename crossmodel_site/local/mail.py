"""Shows mail that CrossModel wrote to its folder: to whom, the subject, and the links in it."""

import email
import email.policy
import re
from collections.abc import Iterator
from pathlib import Path

# Django's file backend ends each message of a file with this line.
SEPARATOR = b"-" * 79
LINK = re.compile(r"https?://[^\s<>\"]+")
MAX_LINKS_SHOWN = 3


class MailFolder:
    """`read_new` yields one line for each message that was written since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen_bytes = {file: file.stat().st_size for file in path.glob("*.log")}

    def read_new(self) -> Iterator[str]:
        for file in sorted(self.path.glob("*.log")):
            seen = self._seen_bytes.get(file, 0)
            if file.stat().st_size == seen:
                continue
            content = file.read_bytes()[seen:]
            complete = content.rfind(SEPARATOR)
            if complete < 0:
                continue
            self._seen_bytes[file] = seen + complete + len(SEPARATOR) + 1
            for message in content[:complete].split(SEPARATOR):
                if message.strip():
                    yield describe_message(message.lstrip())


def describe_message(content: bytes) -> str:
    """Return `mail to <address>: <subject>  <link> ...` of one message."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    links = LINK.findall(body.get_content()) if body is not None else []
    shown = "  ".join(dict.fromkeys(link.rstrip(".,)") for link in links[:MAX_LINKS_SHOWN]))
    return f"mail to {message['to']}: {message['subject']}" + (f"  {shown}" if shown else "")

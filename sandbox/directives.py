"""What a request, or the control endpoint, may ask the sandbox to do: the table, and the parser of `name=value; flag`.

Pure: no I/O. `docs/sandbox.md` prints the same table, and a test keeps the two in step.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

MAX_DIRECTIVES_CHARS = 4_000
MAX_MILLISECONDS = 600_000
MAX_TOKENS = 1_000_000
MAX_REPORTED_TOKENS = 10**18
MAX_EVENT_BYTES = 64 * 1024 * 1024
MAX_FLOOD_BYTES = 256 * 1024 * 1024
MAX_SEARCHES = 100
MAX_RETRY_AFTER_SECONDS = 86_400

INLINE_MARK = "[[sandbox:"
_INLINE = re.compile(r"\[\[sandbox:(.*?)\]\]", re.DOTALL)

Protocols = Literal["both", "messages", "chat"]


class DirectiveError(ValueError):
    """A directive that the sandbox does not know, or a value that it cannot take."""


class Directive(NamedTuple):
    """One row of the table. Without `maximum` and `words` it is a flag; `words == ("TEXT",)` means free text."""

    name: str
    meaning: str
    maximum: int | None = None
    words: tuple[str, ...] = ()
    protocols: Protocols = "both"

    @property
    def form(self) -> str:
        """How it is written, for the documentation."""
        if self.maximum is not None:
            return f"{self.name}=N"
        if self.words:
            return f"{self.name}={'/'.join(self.words)}"
        return self.name


FREE_TEXT = ("TEXT",)
STATUSES = ("400", "401", "403", "404", "413", "429", "500", "503", "529")
MOMENTS = ("before_headers", "after_headers", "mid")

_TABLE = (
    # What the reply says.
    Directive("tokens", "output tokens in all; the text takes what thinking and tool calls leave", MAX_TOKENS),
    Directive("say", "the reply is exactly this text", words=FREE_TEXT),
    Directive("thinking", "a thinking block (reasoning_content) of N tokens; 0 for none", MAX_TOKENS),
    Directive("tool", "calls this tool, or several named with commas", words=FREE_TEXT),
    Directive("web_searches", "N web searches by the server tool", MAX_SEARCHES, protocols="messages"),
    Directive("echo", "the reply is the JSON of the received body; max_tokens does not cut it"),
    Directive("echo_headers", "the reply is the JSON of the received headers, the key cut to its last four"),
    Directive(
        "finish",
        "the reason it gives for the end; none: null in Messages, no finish_reason at all in Chat Completions",
        words=("stop", "length", "content_filter", "tool_calls", "none"),
    ),
    Directive("delta", "characters per delta of a stream, 20 unless told", MAX_EVENT_BYTES),
    # How fast.
    Directive("delay", "milliseconds before the response headers", MAX_MILLISECONDS),
    Directive("first", "milliseconds between the headers and the first byte of the body", MAX_MILLISECONDS),
    Directive("pace", "milliseconds between deltas; given at all, each event is a write of its own", MAX_MILLISECONDS),
    # Usage.
    Directive("input_tokens", "reports N uncached input tokens", MAX_REPORTED_TOKENS),
    Directive("cache_read", "reports N tokens read from the cache", MAX_REPORTED_TOKENS),
    Directive("cache_write_5m", "reports N tokens written for five minutes", MAX_REPORTED_TOKENS, protocols="messages"),
    Directive("cache_write_1h", "reports N tokens written for an hour", MAX_REPORTED_TOKENS, protocols="messages"),
    Directive(
        "cache_write", "reports N tokens written, without the 5m/1h split", MAX_REPORTED_TOKENS, protocols="messages"
    ),
    Directive("no_usage", "reports no usage anywhere"),
    Directive("negative_usage", "reports negative counts"),
    Directive("absurd_usage", "reports counts of 10^18"),
    Directive("output_only_delta", "message_delta reports output tokens only, as older APIs do", protocols="messages"),
    Directive("duplicate_delta", "message_delta twice, each with cumulative usage", protocols="messages"),
    Directive(
        "usage",
        "where a stream's usage comes: a chunk of its own, inside the last chunk, or never",
        words=("late", "last", "never"),
        protocols="chat",
    ),
    Directive("null_details", "prompt_tokens_details and completion_tokens_details are null", protocols="chat"),
    # Errors and breakage.
    Directive("status", "answers this error in the protocol's own form", words=STATUSES),
    Directive("message", "the error's text", words=FREE_TEXT),
    Directive("retry_after", "seconds in retry-after; a 429 says 2 unless told", MAX_RETRY_AFTER_SECONDS),
    Directive("html", "answers 502 with an HTML page"),
    Directive("string_error", "answers 500 with an error that is a bare string"),
    Directive("hang", "stops answering at this moment and waits until the client leaves", words=MOMENTS),
    Directive("reset", "resets the TCP connection at this moment", words=MOMENTS),
    Directive("close", "ends the response early and cleanly, without an error", words=("mid",)),
    Directive("error", "an error event in the middle of the stream; without a stream, status 529", words=("mid",)),
    Directive("after", "how many deltas come before a fault that is `mid`; half of them unless told", MAX_TOKENS),
    Directive("no_message_stop", "the stream ends without message_stop", protocols="messages"),
    Directive("no_done", "the stream ends without [DONE]", protocols="chat"),
    Directive("malformed_sse", "one event of the stream carries broken JSON"),
    Directive("bad_json", "a body that is not JSON at all"),
    Directive("truncated_json", "half of the JSON body, with a content-length that fits"),
    Directive("wrong_content_length", "a content-length larger than the body, then the end"),
    Directive("out_of_order_index", "content block indexes that start at 7 and fall", protocols="messages"),
    Directive("interleaved_tools", "fragments of several tool calls in turn", protocols="chat"),
    Directive("odd_tool_id", "tool call ids with characters that Messages forbids", protocols="chat"),
    Directive("truncated_tool_json", "the last tool call's arguments stop in the middle"),
    Directive("empty_arguments", "tool calls with no arguments at all"),
    # Oddities on the wire that a client must bear.
    Directive("gzip", "content-encoding: gzip"),
    Directive("huge_event", "the first delta carries N bytes more", MAX_EVENT_BYTES),
    Directive("flood", "N bytes of text in ordinary deltas, whatever max_tokens says", MAX_FLOOD_BYTES),
    Directive("nul", "the text holds U+0000"),
    Directive("u2028", "the text holds U+2028, U+2029 and U+0085"),
    Directive("split_utf8", "text of several bytes per character, chunk boundaries inside them"),
    Directive("drip", "the body in chunks of N bytes", MAX_EVENT_BYTES),
    Directive("crlf", "lines of the stream end in CR LF"),
    Directive("ping", "a ping event before every delta", protocols="messages"),
    Directive("comments", "a comment line before every event of the stream"),
)
DIRECTIVES: Mapping[str, Directive] = {directive.name: directive for directive in _TABLE}


class Directives:
    """The directives of one request. Empty is false, so that the common path costs one test."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int | str] | None = None) -> None:
        self._values: Mapping[str, int | str] = values or {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __str__(self) -> str:
        return "; ".join(
            name if DIRECTIVES[name].maximum is None and not DIRECTIVES[name].words else f"{name}={value}"
            for name, value in self._values.items()
        )

    def number(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        assert isinstance(value, int)  # noqa: S101  The parser stored it as a number.
        return value

    def word(self, name: str) -> str | None:
        value = self._values.get(name)
        return None if value is None else str(value)

    def over(self, other: "Directives") -> "Directives":
        """These directives, and those of `other` that these do not set."""
        if not other:
            return self
        return Directives({**other._values, **self._values}) if self else other


NO_DIRECTIVES = Directives()


def parse_directives(text: str) -> Directives:
    """Read `name=value; flag; flag=1`. Raises DirectiveError for an unknown name or an impossible value:
    a test that misspells a directive must fail, not pass for the wrong reason."""
    if len(text) > MAX_DIRECTIVES_CHARS:
        raise DirectiveError(f"sandbox directives are longer than {MAX_DIRECTIVES_CHARS} characters")
    values: dict[str, int | str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not name and not equals:
            continue
        directive = DIRECTIVES.get(name)
        if directive is None:
            raise DirectiveError(f"unknown sandbox directive '{name}'; docs/sandbox.md lists them")
        if not directive.words and directive.maximum is None and value == "0":
            continue
        values[name] = _value(directive, value)
    return Directives(values)


def _value(directive: Directive, value: str) -> int | str:
    if directive.maximum is not None:
        if not value.isdecimal() or not value.isascii() or int(value) > directive.maximum:
            raise DirectiveError(f"sandbox directive '{directive.name}' takes a number up to {directive.maximum}")
        return int(value)
    if directive.words == FREE_TEXT:
        if not value:
            raise DirectiveError(f"sandbox directive '{directive.name}' takes a text")
        return value
    if directive.words:
        if value not in directive.words:
            raise DirectiveError(f"sandbox directive '{directive.name}' takes one of {', '.join(directive.words)}")
        return value
    if value not in ("", "1"):
        raise DirectiveError(f"sandbox directive '{directive.name}' is a flag and takes no value")
    return 1


def inline_directives(text: str) -> Directives:
    """The directives written inside a user's text as `[[sandbox: ...]]`; several marks add up."""
    if INLINE_MARK not in text:
        return NO_DIRECTIVES
    return parse_directives(";".join(_INLINE.findall(text)))


def without_directives(text: str) -> str:
    """The user's own words: what a reply is made from, so that a directive about the wire changes no word of it."""
    return _INLINE.sub("", text) if INLINE_MARK in text else text


def directive_table() -> str:
    """The table as docs/sandbox.md prints it."""
    protocol_names = {"both": "both", "messages": "Messages", "chat": "Chat Completions"}
    rows = [f"| `{row.form}` | {protocol_names[row.protocols]} | {row.meaning} |" for row in DIRECTIVES.values()]
    return "\n".join(["| directive | protocol | what the sandbox does |", "|---|---|---|", *rows])

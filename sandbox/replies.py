"""What the sandbox answers: the same request gets the same words. Pure, and the same for both protocols."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from sandbox.directives import Directives
from sandbox.tokens import BYTES_PER_TOKEN, cut_to_tokens, text_tokens

SENTENCE = (
    "This is CrossModel's sandbox, not a real model: it answers with made-up words, "
    "so that everything around it can be tried without a provider's key."
)
THINKING_SENTENCE = "The sandbox does not think; it only shows what thinking looks like."
DEFAULT_THINKING_TOKENS = 16
DEFAULT_DELTA_CHARS = 20
UNBOUNDED_TOKENS = 1 << 62
MAX_SCHEMA_DEPTH = 20

_FILLER = (
    "amber river quiet lantern seven paper garden slow copper window early salt meadow north button open violet ladder "
    "round winter orchard plain silver thread little harbour warm pebble distant music green table honest cloud narrow "
    "bridge soft engine yellow letter patient stone bright kettle second island hollow feather steady market blue as "
) * 8
_WIDE_FILLER = "schön naïve Straße déjà 雨音 日本 한국 привет λόγος 😀 🧪 €uro œuvre " * 16


class ToolCall(NamedTuple):
    """One call of a client's tool; `arguments` is JSON, unless a directive broke it."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Asked:
    """What a request of either protocol asks of the reply."""

    last_user_text: str
    max_tokens: int = UNBOUNDED_TOKENS
    stop_sequences: list[str] = field(default_factory=list)
    thinking_tokens: int = 0
    hide_thinking: bool = False
    forced_tool: str | None = None
    schema_by_tool: dict[str, Any] = field(default_factory=dict)
    web_searches: int = 0
    answer_schema: Any = None
    """JSON schema of the whole answer (structured output)."""


@dataclass(slots=True)
class Reply:
    """A reply before any protocol's form. `finish` is in the words of Chat Completions."""

    text: str
    finish: str = "stop"
    stop_sequence: str | None = None
    thinking: str | None = None
    hide_thinking: bool = False
    web_searches: int = 0
    tool_calls: list[ToolCall] = field(default_factory=list)
    output_tokens: int = 0
    thinking_tokens: int = 0
    delta_chars: int = DEFAULT_DELTA_CHARS
    first_delta_chars: int = 0
    """What the first delta carries on top (huge_event)."""

    def text_deltas(self) -> Iterator[str]:
        """The text as a stream delivers it."""
        return split_deltas(self.text, self.delta_chars, self.first_delta_chars)


def split_deltas(text: str, delta_chars: int, first_delta_chars: int = 0) -> Iterator[str]:
    """A text cut into deltas; the first one carries so many characters more."""
    start = first_delta_chars + delta_chars
    if text:
        yield text[:start]
    for index in range(start, len(text), delta_chars):
        yield text[index : index + delta_chars]


def plan_reply(asked: Asked, directives: Directives, *, echoed: str | None) -> Reply:
    """Decide what to answer. `echoed` is the text that an echo directive asks for."""
    if echoed is not None:
        reply = Reply(echoed)
    elif not directives:
        reply = _plain_reply(asked)
    else:
        reply = _directed_reply(asked, directives)
    reply.thinking_tokens = text_tokens(reply.thinking) if reply.thinking else 0
    reply.output_tokens = max(
        1,
        text_tokens(reply.text)
        + reply.thinking_tokens
        + sum([text_tokens(call.name) + text_tokens(call.arguments) for call in reply.tool_calls]),
    )
    return reply


def _plain_reply(asked: Asked) -> Reply:
    thinking = _thinking(min(asked.thinking_tokens, asked.max_tokens)) if asked.thinking_tokens else None
    left = asked.max_tokens - (text_tokens(thinking) if thinking else 0)
    reply = Reply("", thinking=thinking, hide_thinking=asked.hide_thinking, web_searches=asked.web_searches)
    if asked.forced_tool is not None:
        reply.tool_calls = [_tool_call(asked, asked.forced_tool, 0)]
        reply.finish = "tool_calls"
        return reply
    text = SENTENCE if asked.answer_schema is None else _json(example_of(asked.answer_schema))
    _end_text(reply, text, asked, left)
    return reply


def _directed_reply(asked: Asked, directives: Directives) -> Reply:
    thinking_tokens = min(directives.number("thinking", asked.thinking_tokens), asked.max_tokens)
    reply = Reply(
        "",
        thinking=_thinking(thinking_tokens) if thinking_tokens else None,
        hide_thinking=asked.hide_thinking,
        web_searches=directives.number("web_searches", asked.web_searches),
        delta_chars=max(1, directives.number("delta", DEFAULT_DELTA_CHARS)),
    )
    names = directives.word("tool") or asked.forced_tool
    if names is not None:
        reply.tool_calls = [_tool_call(asked, name.strip(), index) for index, name in enumerate(names.split(","))]
        _disturb_tool_calls(reply.tool_calls, directives)
    tool_tokens = sum([text_tokens(call.name) + text_tokens(call.arguments) for call in reply.tool_calls])
    spoken_for = thinking_tokens + tool_tokens
    if asked.forced_tool is None or "tokens" in directives:
        _end_text(reply, _directed_text(asked, directives, spoken_for), asked, max(0, asked.max_tokens - spoken_for))
    if reply.tool_calls and reply.finish == "stop":
        reply.finish = "tool_calls"
    _add_excess(reply, directives)
    reply.finish = directives.word("finish") or reply.finish
    return reply


def _directed_text(asked: Asked, directives: Directives, spoken_for: int) -> str:
    said = directives.word("say")
    if said is None and asked.answer_schema is not None:
        said = _json(example_of(asked.answer_schema))
    wide = "split_utf8" in directives
    if "tokens" in directives:
        wanted = max(0, directives.number("tokens", 0) - spoken_for)
        text = said or _sentence_and_words(asked.last_user_text, wanted, wide)
        return cut_to_tokens(_odd(text, directives), wanted)
    if said is not None:
        return _odd(said, directives)
    return _odd(f"{SENTENCE} {_WIDE_FILLER[:60]}" if wide else SENTENCE, directives)


def _odd(text: str, directives: Directives) -> str:
    """Put the odd characters behind the first word, where even a short text holds them."""
    first, _, rest = text.partition(" ")
    if "nul" in directives:
        first += "\x00"
    if "u2028" in directives:
        first += "\u2028\u2029\u0085"
    return f"{first} {rest}" if rest else first


def _end_text(reply: Reply, text: str, asked: Asked, tokens_left: int) -> None:
    """Apply max_tokens, then the stop sequence that comes first."""
    reply.text = cut_to_tokens(text, tokens_left)
    if len(reply.text) < len(text):
        reply.finish = "length"
    found = [(reply.text.find(stop), stop) for stop in asked.stop_sequences if stop and stop in reply.text]
    if found:
        position, reply.stop_sequence = min(found)
        reply.text = reply.text[:position]
        reply.finish = "stop"


def _add_excess(reply: Reply, directives: Directives) -> None:
    if "flood" in directives:
        reply.text = _words(0, directives.number("flood", 0), _FILLER)
    if "huge_event" in directives:
        reply.first_delta_chars = directives.number("huge_event", 0)
        reply.text = _words(0, reply.first_delta_chars, _FILLER) + reply.text


def _sentence_and_words(seed: str, tokens: int, wide: bool) -> str:
    """The honest sentence, then words that the seed chooses, at least as long as asked."""
    needed = tokens * BYTES_PER_TOKEN
    if needed <= len(SENTENCE) and not wide:
        return SENTENCE
    offset = zlib.crc32(seed.encode("utf-8", "surrogatepass")) % 1_000
    return f"{SENTENCE} {_words(offset, needed, _WIDE_FILLER if wide else _FILLER)}"


def _words(offset: int, length: int, filler: str) -> str:
    offset = filler.find(" ", offset % len(filler)) + 1
    return (filler * ((offset + length) // len(filler) + 1))[offset : offset + length]


def _thinking(tokens: int) -> str:
    length = tokens * BYTES_PER_TOKEN
    if length <= len(THINKING_SENTENCE):
        return THINKING_SENTENCE[:length]
    return f"{THINKING_SENTENCE} {_words(0, length, _FILLER)}"[:length]


def _tool_call(asked: Asked, name: str, index: int) -> ToolCall:
    arguments = _json(example_of(asked.schema_by_tool.get(name) or {}))
    digest = zlib.crc32(f"{asked.last_user_text}/{name}/{index}".encode("utf-8", "surrogatepass"))
    return ToolCall(f"sandbox_{digest:08x}{index}", name, arguments)


def _disturb_tool_calls(calls: list[ToolCall], directives: Directives) -> None:
    if "empty_arguments" in directives:
        calls[:] = [call._replace(arguments="") for call in calls]
    if "truncated_tool_json" in directives:
        last = calls[-1]
        arguments = last.arguments if len(last.arguments) > 2 else '{"city": "Sandbo'
        calls[-1] = last._replace(arguments=arguments[: max(2, len(arguments) // 2)])
    if "odd_tool_id" in directives:
        calls[:] = [call._replace(id=f"call:{call.id}/{index}.λ") for index, call in enumerate(calls)]


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def example_of(schema: Any, depth: int = 0) -> Any:
    """A value that fits a JSON schema of the common kind; an unknown schema gives an empty object."""
    if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
        return {}
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("enum", "anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            chosen = schema[keyword][0]
            return chosen if keyword == "enum" else example_of(chosen, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    return _example_of_kind(schema, kind, depth)


def _example_of_kind(schema: dict[str, Any], kind: Any, depth: int) -> Any:
    match kind:
        case "string":
            return "sandbox".ljust(int(schema.get("minLength", 0)), "x")
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [example_of(schema.get("items"), depth + 1)] * int(schema.get("minItems", 1))
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    required = schema.get("required", properties)
    return {name: example_of(properties[name], depth + 1) for name in properties if name in required}

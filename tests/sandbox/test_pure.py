"""Pure parts: directives, token counts, the cache's clock, and the page that documents them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.directives import (
    DIRECTIVES,
    DirectiveError,
    Directives,
    directive_table,
    inline_directives,
    parse_directives,
)
from sandbox.faults import BROKEN_WHEN_WHOLE, chunks
from sandbox.prompt_cache import PromptCache
from sandbox.replies import Asked, example_of, plan_reply
from sandbox.tokens import PromptBlock, cut_to_tokens, text_tokens

DOCUMENT = Path(__file__).parents[2] / "docs" / "sandbox.md"


def test_the_document_has_the_table_of_the_code() -> None:
    assert directive_table() in DOCUMENT.read_text()


def test_every_directive_is_tested_by_name() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in DIRECTIVES if name not in tests] == []
    assert set(BROKEN_WHEN_WHOLE) <= set(DIRECTIVES)


def test_parsing() -> None:
    directives = inline_directives("Hi [[sandbox: tokens=5; html]] and [[sandbox: say=a = b;crlf=0;]]")
    assert str(directives) == "tokens=5; html; say=a = b"
    assert not inline_directives("Hi [sandbox: html]")
    assert str(parse_directives("tokens=1").over(parse_directives("tokens=2; html"))) == "tokens=1; html"


@pytest.mark.parametrize(
    "text", ["typo", "tokens", "tokens=-1", "tokens=x", "tokens=2000000", "html=2", "hang=never", "=", "say="]
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(DirectiveError):
        parse_directives(text)


@given(st.text(), st.integers(0, 30))
def test_cut_text_is_a_beginning_within_its_tokens(text: str, tokens: int) -> None:
    cut = cut_to_tokens(text, tokens)
    assert text.startswith(cut) and text_tokens(cut) <= tokens
    assert cut == text or text_tokens(text[: len(cut) + 1]) > tokens


@given(st.text(max_size=50), st.integers(1, 2_000), st.integers(1, 2_000))
def test_output_tokens_are_what_was_asked_within_max_tokens(text: str, tokens: int, max_tokens: int) -> None:
    reply = plan_reply(Asked(text, max_tokens=max_tokens), Directives({"tokens": tokens}), echoed=None)
    assert reply.output_tokens == min(tokens, max_tokens) == text_tokens(reply.text)
    assert "".join(reply.text_deltas()) == reply.text
    assert reply.finish == ("length" if max_tokens < tokens else "stop")


@given(st.binary(), st.integers(1, 9))
def test_chunks_add_up(raw: bytes, size: int) -> None:
    for directives in (Directives({"drip": size}), Directives({"split_utf8": 1}), Directives()):
        assert b"".join(chunks(raw, directives)) == raw


def test_cached_prefixes_expire_by_their_lifetime() -> None:
    cache = PromptCache()
    blocks = [PromptBlock("system", "long", 100, "5m"), PromptBlock("user", "short", 7, None)]
    assert cache.use(blocks, scope="m", now=0) == (7, 0, 100, 0)
    assert cache.use(blocks, scope="other", now=1) == (7, 0, 100, 0)
    assert cache.use(blocks, scope="m", now=299) == (7, 100, 0, 0)
    # Reading renews it.
    assert cache.use(blocks, scope="m", now=598) == (7, 100, 0, 0)
    assert cache.use(blocks, scope="m", now=899) == (7, 0, 100, 0)


def test_examples_fit_their_schema() -> None:
    schema = {
        "type": "object",
        "required": ["unit", "tags", "when", "deep"],
        "properties": {
            "unit": {"enum": ["c", "f"]},
            "tags": {"type": "array", "items": {"type": "integer", "minimum": 3}},
            "when": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "deep": {"type": "object", "properties": {"on": {"type": ["boolean", "null"]}}},
            "left_out": {"type": "string"},
        },
    }
    assert example_of(schema) == {"unit": "c", "tags": [3], "when": None, "deep": {"on": True}}

"""Blocks of which there is nothing to say are let through at once: as the full check would, and counted alike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.json.depth import MAX_DEPTH, MAX_WRITTEN_BYTES, is_too_deep
from gateway.protocol.messages import content_blocks
from gateway.protocol.messages.content_blocks import BlockCounts, check_content

KINDS = [*content_blocks._CHECKS, "unknown", "file", "container_upload", "search_result", "web_search_tool_result"]
ODD = st.sampled_from([None, "", "a", "a b", "x" * 300, 0, 1, True, [], {}, ["a"], {"type": "file"}, {"file_id": "f"}])
IMAGE = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
SOURCES = [
    IMAGE,
    {**IMAGE, "data": "A" * 200},
    {**IMAGE, "data": "data:image/png;base64," + "A" * 200},
    {**IMAGE, "data": "A" * 200 + "é"},
    {**IMAGE, "data": ""},
    {**IMAGE, "media_type": ["image/png"]},
    {**IMAGE, "media_type": "image/bmp"},
    {"type": "url", "url": "https://example.org/a"},
    {"type": "text", "media_type": "text/plain", "data": "a"},
    {"type": ["text"]},
    {"type": "file", "file_id": "f"},
]
FIELDS = {
    "text": st.just("a") | ODD,
    "source": st.sampled_from(SOURCES) | ODD,
    "id": st.just("toolu_1") | ODD,
    "tool_use_id": st.just("toolu_1") | ODD,
    "name": st.just("get") | ODD,
    "input": st.just({}) | ODD,
    "content": st.just("a") | st.just([{"type": "text", "text": "a"}]) | ODD,
    "is_error": ODD,
    "thinking": st.just("a") | ODD,
    "signature": ODD,
    "data": ODD,
    "file_id": ODD,
}
BLOCKS = st.builds(
    lambda kind, fields: {"type": kind, **fields}, st.sampled_from(KINDS), st.fixed_dictionaries({}, optional=FIELDS)
)


def outcome(blocks: list[dict[str, Any]]) -> Any:
    """Return what was counted, or how it was refused."""
    counts = BlockCounts()
    try:
        check_content("messages.0.content", blocks, counts)
    except InvalidRequestError as error:
        return str(error), error.code, error.param
    return {name: getattr(counts, name) for name in BlockCounts.__slots__}


@given(st.lists(BLOCKS, max_size=4))
def test_what_is_let_through_at_once_is_what_the_full_check_lets_through(blocks: list[dict[str, Any]]) -> None:
    at_once = outcome(blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_blocks, "_IS_PLAIN", dict.fromkeys(KINDS, lambda block, counts: False))
        patch.setattr(content_blocks, "_is_plain_other", lambda block, counts: False)
        assert at_once == outcome(blocks)


def test_many_small_blocks_need_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each of them is would cost several times what reading it does."""
    plain: list[dict[str, Any]] = [
        {"type": "image", "source": IMAGE},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}},
        {"type": "tool_use", "id": "a", "name": "b", "input": {}},
        {"type": "tool_result", "tool_use_id": "a", "content": "c", "is_error": False},
        {"type": "thinking", "thinking": "a", "signature": "b"},
        {"type": "unknown", "x": 1},
    ]
    counts = BlockCounts()
    check_content("messages.0.content", plain, counts)
    monkeypatch.setattr(content_blocks, "_CHECKS", dict.fromkeys(content_blocks._CHECKS))
    monkeypatch.setattr(content_blocks, "_check_other", None)
    check_content("messages.0.content", plain * 10, counts)
    assert (counts.image_count, counts.image_data_bytes, counts.unknown_blocks) == (11, 44, 11)


@pytest.mark.parametrize("padding", [0, MAX_WRITTEN_BYTES])
@pytest.mark.parametrize(("levels", "is_deep"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True), (900, True)])
def test_depth_is_known_to_the_level(padding: int, levels: int, is_deep: bool) -> None:
    value: Any = "x" * padding
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    raw = b'{"[":' * levels + b" " * padding
    assert is_too_deep(raw, value) is is_deep


def test_a_number_that_only_the_standard_library_writes_is_not_deep() -> None:
    assert not is_too_deep(b"[" * 300, [10**30] * 300)

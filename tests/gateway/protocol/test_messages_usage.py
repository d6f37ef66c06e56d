"""Usage of the Messages protocol: the last cumulative value counts, a zero is said, components are disjoint."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.cost import Usage
from gateway.metering.meter import says_too_little
from gateway.protocol.messages.usage import MessagesUsageReader
from gateway.protocol.usage_reading import UsageReading, UsageState


def read_whole(usage: Any, **fields: Any) -> UsageReading:
    reader = MessagesUsageReader()
    reader.read_message({"id": "msg_1", "content": [], "stop_reason": "end_turn", "usage": usage, **fields})
    return reader.reading()


def read_stream(start: Any, *deltas: Any, is_complete: bool = True) -> UsageReading:
    reader = MessagesUsageReader()
    reader.read_start({"id": "msg_1", "usage": start})
    for usage in deltas:
        reader.read_usage(usage, is_start=False)
    reader.is_complete = is_complete
    return reader.reading()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 18, "output_tokens": 14}, Usage(input_tokens=18, output_tokens=14)),
        ({"input_tokens": 0, "output_tokens": 0}, Usage()),
        (
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": 4,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
                "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 9},
            },
            Usage(
                input_tokens=1,
                output_tokens=2,
                cache_write_5m_tokens=10,
                cache_write_1h_tokens=20,
                cache_read_tokens=4,
                web_searches=3,
            ),
        ),
        # No split: all of it is five minutes.
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30},
            Usage(input_tokens=1, output_tokens=2, cache_write_5m_tokens=30),
        ),
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30, "cache_creation": None},
            Usage(input_tokens=1, output_tokens=2, cache_write_5m_tokens=30),
        ),
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30, "cache_creation": {}},
            Usage(input_tokens=1, output_tokens=2, cache_write_5m_tokens=30),
        ),
        # A split that covers less than the whole: the rest is five minutes.
        (
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_1h_input_tokens": 12},
            },
            Usage(input_tokens=1, output_tokens=2, cache_write_5m_tokens=18, cache_write_1h_tokens=12),
        ),
        # A split without the whole.
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 12}},
            Usage(input_tokens=1, output_tokens=2, cache_write_1h_tokens=12),
        ),
        # Of the advisor and of types nobody knows yet, too; those of a fallback that served are the top-level ones.
        (
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "iterations": [
                    {"type": "fallback_message", "input_tokens": 1, "output_tokens": 2},
                    {"type": "advisor_message", "input_tokens": 823, "output_tokens": 531},
                    {"type": "novel", "cache_creation_input_tokens": 4},
                ],
            },
            Usage(input_tokens=824, output_tokens=533, cache_write_5m_tokens=4),
        ),
        # Tokens of compaction lie outside the top-level counts; other iterations inside.
        (
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "iterations": [
                    {"type": "message", "input_tokens": 1, "output_tokens": 2},
                    {"type": "compaction", "input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 7},
                ],
            },
            Usage(input_tokens=101, output_tokens=52, cache_read_tokens=7),
        ),
    ],
)
def test_disjoint_components(usage: dict[str, Any], expected: Usage) -> None:
    reading = read_whole(usage)
    assert (reading.state, reading.usage) == (UsageState.FINAL, expected)
    assert reading.has_input and reading.has_output


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 2},
        {"input_tokens": 1, "output_tokens": 10**9},
        {"input_tokens": True, "output_tokens": 2},
        {"input_tokens": "1", "output_tokens": 2},
        {"input_tokens": 1.0, "output_tokens": 2},
        {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": -5},
        {"input_tokens": 1, "output_tokens": 2, "cache_creation": 3},
        {"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 10**6}},
        {"input_tokens": 1, "output_tokens": 2, "server_tool_use": []},
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_1h_input_tokens": 6},
        },
        {"input_tokens": 1, "output_tokens": 2, "iterations": {}},
        {"input_tokens": 1, "output_tokens": 2, "iterations": [{"type": "compaction", "input_tokens": -1}]},
        "none",
        [],
    ],
)
def test_what_cannot_be_true_is_unusable(usage: Any) -> None:
    reading = read_whole(usage)
    assert (reading.state, reading.usage) == (UsageState.UNUSABLE, Usage())
    assert not reading.has_input and not reading.has_output
    assert reading.problem


def test_no_usage_is_absent_and_half_of_it_partial() -> None:
    assert read_whole(None).state is UsageState.ABSENT
    half = read_whole({"input_tokens": 5})
    assert (half.state, half.has_input, half.has_output) == (UsageState.PARTIAL, True, False)


def test_the_last_cumulative_value_counts_and_nothing_is_summed() -> None:
    reading = read_stream({"input_tokens": 25, "output_tokens": 1}, {"output_tokens": 10}, {"output_tokens": 15})
    assert reading.usage == Usage(input_tokens=25, output_tokens=15)
    assert reading.state is UsageState.FINAL


def test_the_placeholder_of_the_start_is_no_output_count() -> None:
    reading = read_stream({"input_tokens": 25, "output_tokens": 8}, is_complete=False)
    assert (reading.state, reading.has_output, reading.usage) == (UsageState.PARTIAL, False, Usage(input_tokens=25))
    assert read_stream({"input_tokens": 25, "output_tokens": 8}).state is UsageState.PARTIAL


def test_counts_that_fall_wipe_nothing() -> None:
    """Some upstreams say the prompt at the start, and zeros (or nulls, or nothing) at the end."""
    start = {"input_tokens": 1200, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 50_000}
    counts = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    expected = Usage(input_tokens=1200, output_tokens=40, cache_write_5m_tokens=300, cache_read_tokens=50_000)
    assert read_stream(start, {**counts, "output_tokens": 40}).usage == expected
    assert read_stream(start, {**dict.fromkeys(counts), "output_tokens": 40}).usage == expected
    assert read_stream(start, {"output_tokens": 40}, {**counts, "output_tokens": 0}).usage == expected
    assert read_stream(start, {**counts, "input_tokens": 1200, "output_tokens": 40}).usage == expected


def test_a_later_split_of_the_same_prompt_counts() -> None:
    split = {"input_tokens": 18, "cache_read_input_tokens": 8816, "output_tokens": 5}
    expected = Usage(input_tokens=18, cache_read_tokens=8816, output_tokens=5)
    assert read_stream({"input_tokens": 8834}, split).usage == expected
    assert read_stream({"input_tokens": 0}, split).usage == expected


def test_an_explicit_zero_is_said() -> None:
    reading = read_stream({"input_tokens": 25}, {"output_tokens": 0})
    assert (reading.state, reading.usage, reading.has_output) == (UsageState.FINAL, Usage(input_tokens=25), True)


@pytest.mark.parametrize("broken", ["40", 40.0, -1, True, 10**9, []])
def test_a_report_that_cannot_be_true_wipes_nothing_that_was_said_before(broken: Any) -> None:
    reading = read_stream({"input_tokens": 1200, "cache_read_input_tokens": 7}, {"output_tokens": broken})
    assert (reading.state, reading.usage) == (UsageState.UNUSABLE, Usage(input_tokens=1200, cache_read_tokens=7))
    assert (reading.has_input, reading.has_output) == (True, False)


def test_searches_and_iterations_do_not_fall_either() -> None:
    compaction = {"type": "compaction", "input_tokens": 100, "output_tokens": 50}
    full = {"output_tokens": 2, "server_tool_use": {"web_search_requests": 3}, "iterations": [compaction]}
    empty = {"output_tokens": 2, "server_tool_use": {"web_search_requests": 0}, "iterations": []}
    assert read_stream({"input_tokens": 1}, full, empty).usage == Usage(101, 52, web_searches=3)


def test_the_split_of_the_start_stays_known_when_the_delta_has_only_the_total() -> None:
    split = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    start = {"input_tokens": 1, "cache_creation_input_tokens": 30, "cache_creation": split}
    same = read_stream(start, {"output_tokens": 2, "cache_creation_input_tokens": 30}).usage
    more = read_stream(start, {"output_tokens": 2, "cache_creation_input_tokens": 34}).usage
    none = read_stream(start, {"output_tokens": 2, "cache_creation_input_tokens": 0}).usage
    assert (same.cache_write_5m_tokens, same.cache_write_1h_tokens) == (10, 20)
    assert (more.cache_write_5m_tokens, more.cache_write_1h_tokens) == (14, 20)
    assert (none.cache_write_5m_tokens, none.cache_write_1h_tokens) == (10, 20)


def test_delivered_bytes_are_of_utf8() -> None:
    content = [
        {"type": "thinking", "thinking": "né", "signature": "not counted"},
        {"type": "text", "text": "a€"},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}},
    ]
    assert read_whole(None, content=content).delivered_bytes == 3 + 4 + len('{"a":1}')
    reader = MessagesUsageReader()
    for delta in (
        {"type": "text_delta", "text": "a€"},
        {"type": "thinking_delta", "thinking": "né"},
        {"type": "input_json_delta", "partial_json": '{"a"'},
        {"type": "signature_delta", "signature": "not counted"},
        {"type": "novel_delta", "text": 3},
    ):
        reader.read_delta(delta)
    assert reader.reading().delivered_bytes == 4 + 3 + 4
    reader.read_block_start({"type": "tool_use", "id": "t", "name": "n", "input": {}})
    reader.read_block_start({"type": "web_search_tool_result", "content": [], "text": "not counted"})
    assert reader.reading().delivered_bytes == 4 + 3 + 4
    reader.read_block_start({"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}})
    assert reader.reading().delivered_bytes == 4 + 3 + 4 + len('{"a":1}')


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"query": "x"}},
        {"type": "mcp_tool_use", "id": "t", "name": "n", "input": {"query": "x"}},
        {"type": "redacted_thinking", "data": "hidden"},
        {"type": "novel_block", "text": "said"},
    ],
    ids=lambda block: block["type"],
)
def test_whatever_a_model_writes_counts_beside_counts_of_nothing(block: dict[str, Any]) -> None:
    """Replies of nothing but calls of server tools, or hidden thinking, with counts of 0, were free."""
    nothing = {"input_tokens": 0, "output_tokens": 0}
    result = {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"url": "u"}]}
    reading = read_whole(nothing, content=[block, result])
    assert says_too_little(reading)
    reader = MessagesUsageReader()
    reader.read_block_start(block)
    assert reader.reading().delivered_bytes == reading.delivered_bytes > 0


def test_texts_for_postgres_hold_no_nul() -> None:
    reading = read_whole(None, id="msg\x00_1" + "x" * 200, stop_reason="end\x00_turn")
    assert reading.upstream_message_id == "msg_1" + "x" * 95
    assert reading.stop_reason == "end_turn"
    assert read_whole(None, id=3, stop_reason=["a"]).stop_reason == ""


COUNT = st.integers(0, 10**6)


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_components_add_up_to_what_was_reported(a: int, b: int, five: int, hour: int, rest: int) -> None:
    usage = {
        "input_tokens": a,
        "output_tokens": 1,
        "cache_read_input_tokens": b,
        "cache_creation_input_tokens": five + hour + rest,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
    }
    assert read_whole(usage).usage.prompt_tokens == a + b + five + hour + rest


PROMPT_FIELDS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
REPORT = st.fixed_dictionaries({}, optional={name: COUNT | st.none() for name in (*PROMPT_FIELDS, "output_tokens")})


@given(st.lists(REPORT, min_size=1, max_size=6))
def test_neither_side_ever_falls_and_the_last_largest_prompt_is_kept_as_it_was_split(reports: list[Any]) -> None:
    reader = MessagesUsageReader()
    before = Usage()
    for report in reports:
        reader.read_usage(report, is_start=False)
        usage = reader.reading().usage
        assert usage.prompt_tokens >= before.prompt_tokens
        assert usage.output_tokens == max(before.output_tokens, report.get("output_tokens") or 0)
        if all(report.get(name) is not None for name in PROMPT_FIELDS):
            assert usage.prompt_tokens >= sum(report[name] for name in PROMPT_FIELDS)
        before = usage


@given(
    st.dictionaries(
        st.sampled_from(["input_tokens", "output_tokens", "cache_creation", "iterations"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_any_usage_gives_a_reading(usage: dict[str, Any]) -> None:
    reading = read_whole(usage)
    assert min(reading.usage.counts) >= 0

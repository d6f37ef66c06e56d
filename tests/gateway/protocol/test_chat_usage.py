"""Usage of Chat Completions: where providers put it, what they leave out of it, and that nothing wipes it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.cost import Usage
from gateway.protocol.chat.usage import ChatUsageReader
from gateway.protocol.profile import DEFAULT_PROFILE, UpstreamProfile
from gateway.protocol.usage_reading import UsageReading, UsageState


def read(*payloads: Any, profile: UpstreamProfile = DEFAULT_PROFILE) -> UsageReading:
    reader = ChatUsageReader(profile)
    for payload in payloads:
        reader.read_payload(payload)
    reader.complete("end_turn")
    return reader.reading()


def said(**usage: Any) -> dict[str, Any]:
    return {"usage": usage}


# Samples as the providers document them, or as their users reported them.
SAMPLES: dict[str, tuple[dict[str, Any], Usage]] = {
    "openai": (
        said(
            prompt_tokens=2006,
            completion_tokens=300,
            total_tokens=2306,
            prompt_tokens_details={"cached_tokens": 1920, "audio_tokens": 0},
            completion_tokens_details={"reasoning_tokens": 256},
        ),
        Usage(input_tokens=86, output_tokens=300, cache_read_tokens=1920),
    ),
    "deepseek": (
        said(
            prompt_tokens=1200,
            completion_tokens=30,
            total_tokens=1230,
            prompt_cache_hit_tokens=1152,
            prompt_cache_miss_tokens=48,
        ),
        Usage(input_tokens=48, output_tokens=30, cache_read_tokens=1152),
    ),
    "the names of OpenAI's newer API": (
        said(
            input_tokens=2006,
            output_tokens=300,
            total_tokens=2306,
            input_tokens_details={"cached_tokens": 1920},
            output_tokens_details={"reasoning_tokens": 256},
        ),
        Usage(input_tokens=86, output_tokens=300, cache_read_tokens=1920),
    ),
    "the names of Anthropic": (
        said(input_tokens=21, output_tokens=300, cache_read_input_tokens=1920, cache_creation_input_tokens=7),
        Usage(input_tokens=21, output_tokens=300, cache_write_5m_tokens=7, cache_read_tokens=1920),
    ),
    "both names": (
        said(prompt_tokens=50, completion_tokens=3, input_tokens=0, output_tokens=0),
        Usage(input_tokens=50, output_tokens=3),
    ),
    "moonshot": (
        said(prompt_tokens=8834, completion_tokens=12, total_tokens=8846, cached_tokens=8816),
        Usage(input_tokens=18, output_tokens=12, cache_read_tokens=8816),
    ),
    "moonshot in the choice of the last chunk": (
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "stop",
                    "usage": {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 3},
                }
            ]
        },
        Usage(input_tokens=16, output_tokens=13, cache_read_tokens=3),
    ),
    "groq": (
        {
            "choices": [],
            "x_groq": {
                "id": "req_1",
                "usage": {
                    "queue_time": 0.037,
                    "prompt_tokens": 4641,
                    "prompt_time": 0.21,
                    "completion_tokens": 1817,
                    "total_tokens": 6458,
                    "prompt_tokens_details": {"cached_tokens": 4608},
                },
            },
        },
        Usage(input_tokens=33, output_tokens=1817, cache_read_tokens=4608),
    ),
    "mistral": (
        said(
            prompt_tokens=1013, total_tokens=1043, completion_tokens=30, prompt_tokens_details={"cached_tokens": 1008}
        ),
        Usage(input_tokens=5, output_tokens=30, cache_read_tokens=1008),
    ),
    "mistral, its other places": (
        said(
            prompt_tokens=801,
            total_tokens=803,
            completion_tokens=2,
            prompt_token_details={"cached_tokens": 768},
            prompt_audio_seconds={},
        ),
        Usage(input_tokens=33, output_tokens=2, cache_read_tokens=768),
    ),
    "mistral, its oldest place": (
        said(prompt_tokens=801, total_tokens=803, completion_tokens=2, num_cached_tokens=768),
        Usage(input_tokens=33, output_tokens=2, cache_read_tokens=768),
    ),
    "xai": (
        said(
            prompt_tokens=10_120,
            completion_tokens=1499,
            total_tokens=14_428,
            prompt_tokens_details={"text_tokens": 10_120, "cached_tokens": 128},
            completion_tokens_details={"reasoning_tokens": 2809, "accepted_prediction_tokens": 0},
            num_sources_used=0,
        ),
        Usage(input_tokens=9992, output_tokens=1499 + 2809, cache_read_tokens=128),
    ),
    "gemini": (
        said(prompt_tokens=20, completion_tokens=198, total_tokens=623),
        Usage(input_tokens=20, output_tokens=198 + 405),
    ),
    "gemini with its details": (
        said(
            prompt_tokens=21,
            completion_tokens=0,
            total_tokens=81,
            completion_tokens_details={"reasoning_tokens": 60},
        ),
        Usage(input_tokens=21, output_tokens=60),
    ),
    "openrouter": (
        said(
            prompt_tokens=194,
            completion_tokens=2,
            total_tokens=196,
            cost=0.95,
            cost_details={"upstream_inference_cost": 19},
            prompt_tokens_details={"cached_tokens": 10, "cache_write_tokens": 100, "audio_tokens": 0},
            completion_tokens_details={"reasoning_tokens": 0},
        ),
        Usage(input_tokens=84, output_tokens=2, cache_write_5m_tokens=100, cache_read_tokens=10),
    ),
    "qwen": (
        said(
            prompt_tokens=1500,
            completion_tokens=20,
            total_tokens=1520,
            prompt_tokens_details={
                "cached_tokens": 0,
                "cache_creation_input_tokens": 1400,
                "cache_type": "ephemeral",
            },
        ),
        Usage(input_tokens=100, output_tokens=20, cache_write_5m_tokens=1400),
    ),
    "a proxy of Anthropic's models": (
        said(
            prompt_tokens=2000,
            completion_tokens=20,
            total_tokens=2020,
            cache_creation_input_tokens=300,
            cache_read_input_tokens=1500,
            prompt_tokens_details={"cached_tokens": 1500},
        ),
        Usage(input_tokens=200, output_tokens=20, cache_write_5m_tokens=300, cache_read_tokens=1500),
    ),
    "cohere, together without a cache, and most others": (
        said(prompt_tokens=5, completion_tokens=418, total_tokens=423, prompt_tokens_details=None),
        Usage(input_tokens=5, output_tokens=418),
    ),
}


@pytest.mark.parametrize(("payload", "expected"), SAMPLES.values(), ids=SAMPLES.keys())
def test_usage_where_providers_put_it(payload: dict[str, Any], expected: Usage) -> None:
    reading = read(payload)
    assert (reading.state, reading.usage) == (UsageState.FINAL, expected)


def test_a_total_that_is_no_sum_of_reasoning_adds_nothing() -> None:
    usage = said(
        prompt_tokens=10, completion_tokens=20, total_tokens=70, completion_tokens_details={"reasoning_tokens": 5}
    )
    assert read(usage).usage == Usage(input_tokens=10, output_tokens=20)
    assert read(said(prompt_tokens=10, completion_tokens=20, total_tokens=0)).usage.output_tokens == 20


def test_the_profile_says_what_no_total_tells() -> None:
    usage = said(prompt_tokens=10, completion_tokens=20, completion_tokens_details={"reasoning_tokens": 5})
    assert read(usage, profile=UpstreamProfile(reasoning_outside_completion=True)).usage.output_tokens == 25
    usage = said(prompt_tokens=10, completion_tokens=20, total_tokens=37, cached_tokens=7)
    outside = read(usage, profile=UpstreamProfile(cached_outside_prompt=True)).usage
    assert outside == Usage(input_tokens=10, output_tokens=20, cache_read_tokens=7)


def test_zeros_after_the_counts_wipe_nothing() -> None:
    reading = read(said(prompt_tokens=120, completion_tokens=30), said(prompt_tokens=0, completion_tokens=0))
    assert (reading.state, reading.usage) == (UsageState.FINAL, Usage(input_tokens=120, output_tokens=30))


def test_continuous_reports_are_cumulative_and_a_later_split_counts() -> None:
    chunks = [said(prompt_tokens=38, completion_tokens=count, total_tokens=38 + count) for count in (0, 1, 2, 3)]
    last = said(prompt_tokens=38, completion_tokens=3, prompt_tokens_details={"cached_tokens": 30})
    assert read(*chunks, last).usage == Usage(input_tokens=8, output_tokens=3, cache_read_tokens=30)


@pytest.mark.parametrize("broken", ["30", 30.0, -1, True, 10**9, {}])
def test_a_report_that_cannot_be_true_wipes_nothing_that_was_said_before(broken: Any) -> None:
    reading = read(said(prompt_tokens=120, completion_tokens=20), said(prompt_tokens=121, completion_tokens=broken))
    assert (reading.state, reading.usage) == (UsageState.UNUSABLE, Usage(input_tokens=120, output_tokens=20))


@pytest.mark.parametrize(
    "payload",
    [
        {"usage": []},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "cached_tokens": 6}},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": 3}},
    ],
)
def test_what_cannot_be_true_is_unusable(payload: dict[str, Any]) -> None:
    reading = read(payload)
    assert (reading.state, reading.usage, reading.has_input) == (UsageState.UNUSABLE, Usage(), False)


@pytest.mark.parametrize("payload", [{}, {"usage": None}, {"x_groq": None, "choices": None}, {"choices": [None]}])
def test_nothing_said_is_absent(payload: dict[str, Any]) -> None:
    assert read(payload).state is UsageState.ABSENT


COUNT = st.integers(0, 10**6)


@given(st.lists(st.tuples(COUNT, COUNT, COUNT), min_size=1, max_size=5))
def test_components_are_disjoint_and_neither_side_falls(reports: list[tuple[int, int, int]]) -> None:
    reader = ChatUsageReader(DEFAULT_PROFILE)
    most_prompt = most_output = 0
    for fresh, cached, output in reports:
        reader.read_payload(said(prompt_tokens=fresh + cached, cached_tokens=cached, completion_tokens=output))
        most_prompt, most_output = max(most_prompt, fresh + cached), max(most_output, output)
        usage = reader.reading().usage
        assert (usage.prompt_tokens, usage.output_tokens) == (most_prompt, most_output)

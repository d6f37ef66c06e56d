"""Reports of a provider in the shape of Anthropic's Admin API, as platform.claude.com documents them."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any


def usage_page(day: date, model: str | None, **counts: int) -> dict[str, Any]:
    """A page with one bucket of one day and one model. Counts are named as ours."""
    result = {
        "account_id": None,
        "api_key_id": None,
        "cache_creation": {
            "ephemeral_1h_input_tokens": counts.get("cache_write_1h_tokens", 0),
            "ephemeral_5m_input_tokens": counts.get("cache_write_5m_tokens", 0),
        },
        "cache_read_input_tokens": counts.get("cache_read_tokens", 0),
        "context_window": None,
        "inference_geo": None,
        "model": model,
        "output_tokens": counts.get("output_tokens", 0),
        "server_tool_use": {"web_search_requests": counts.get("web_searches", 0)},
        "service_tier": None,
        "uncached_input_tokens": counts.get("input_tokens", 0),
        "workspace_id": None,
    }
    return _page(day, [result])


def cost_page(day: date, cents: Mapping[str, str]) -> dict[str, Any]:
    """A page with one bucket of one day, with an amount in cents for each model; "" is what has no model."""
    return _page(
        day,
        [
            {
                "amount": amount,
                "context_window": "0-200k" if model else None,
                "cost_type": "tokens" if model else "web_search",
                "currency": "USD",
                "description": f"{model} Usage" if model else "Web Search Usage",
                "inference_geo": None,
                "model": model or None,
                "service_tier": "standard" if model else None,
                "token_type": "output_tokens" if model else None,
                "workspace_id": None,
            }
            for model, amount in cents.items()
        ],
    )


def _page(day: date, results: list[dict[str, Any]]) -> dict[str, Any]:
    bucket = {
        "starting_at": f"{day}T00:00:00Z",
        "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
        "results": results,
    }
    return {"data": [bucket], "has_more": False, "next_page": None}

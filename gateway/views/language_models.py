"""GET /v1/models and /v1/models/{id}: what is on sale, with prices as decimal strings."""

import re
from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from billing.catalog.snapshot import CatalogModel
from billing.pricing.cost import catalog_price_strings
from gateway.admission.identify import identify_key
from gateway.admission.propose import find_model
from gateway.errors import GatewayError
from gateway.protocol.messages.capabilities import describe_capabilities
from gateway.runtime import GatewayRuntime, current_runtime
from gateway.server.handler import GatewayRequest
from gateway.server.responses import GatewayResponse, json_response

DEFAULT_PAGE, MAX_PAGE = 20, 1000
PAGE_PATTERN = re.compile(r"[0-9]{1,9}")


async def list_language_models(request: GatewayRequest) -> GatewayResponse:
    """A page of models, newest first: `limit` (1 to 1000), `after_id`, `before_id`."""
    _require_get(request)
    runtime = current_runtime()
    key = await identify_key(runtime.keys, request.META)
    request.identity = key.identity
    await runtime.admission.admit_free(key, kind="models", per_minute=settings.LIST_MODELS_PER_MINUTE)
    now = datetime.now(UTC)
    models = [model for model in runtime.catalog.models if model.is_available(now)]
    models.sort(key=lambda model: (model.released_at, model.id), reverse=True)
    limit = _read_limit(request.GET.get("limit"))
    ids = [model.id for model in models]
    lower, upper = 0, len(models)
    if after_id := request.GET.get("after_id"):
        lower = _position(runtime, ids, after_id, "after_id") + 1
    if before_id := request.GET.get("before_id"):
        upper = _position(runtime, ids, before_id, "before_id")
    between = models[lower:upper]
    page = between[-limit:] if before_id else between[:limit]
    has_more = len(between) > limit
    return json_response(
        {
            "data": [_describe(model, now) for model in page],
            "has_more": has_more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


async def show_language_model(request: GatewayRequest, model_id: str) -> GatewayResponse:
    _require_get(request)
    runtime = current_runtime()
    key = await identify_key(runtime.keys, request.META)
    request.identity = key.identity
    await runtime.admission.admit_free(key, kind="models", per_minute=settings.LIST_MODELS_PER_MINUTE)
    now = datetime.now(UTC)
    model, _ = find_model(runtime.catalog, model_id, now)
    return json_response(_describe(model, now))


def _describe(model: CatalogModel, now: datetime) -> dict[str, Any]:
    price = model.price_at(now)
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": model.released_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aliases": list(model.aliases),
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.max_output_tokens,
        "capabilities": describe_capabilities(model.capabilities),
        "lifecycle": "active",  # Anthropic's SDK asks for it; what is not on sale is not listed.
        "deprecated_at": None,
        "retires_at": None,
        "is_sandbox": all(route.is_sandbox for route in model.routes),
        "prices": catalog_price_strings(price) if price is not None else None,
    }


def _require_get(request: GatewayRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise GatewayError(405, "method_not_allowed", "Use GET.", headers={"allow": "GET, HEAD"})


def _read_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE
    if not PAGE_PATTERN.fullmatch(text) or not 1 <= int(text) <= MAX_PAGE:
        raise GatewayError(400, "invalid_limit", f"limit: Input should be between 1 and {MAX_PAGE}")
    return int(text)


def _position(runtime: GatewayRuntime, ids: list[str], model_id: str, name: str) -> int:
    model = runtime.catalog.find(model_id)
    try:
        return ids.index(model.id if model is not None else model_id)
    except ValueError:
        raise GatewayError(400, "invalid_cursor", f"{name}: there is no model {model_id!r}") from None

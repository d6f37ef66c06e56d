"""What drf-spectacular cannot know: errors of every call, the header of every POST, bodies that take no other field."""

from typing import Any

FREE_OF_EFFECTS = {"/api/v1/estimate"}
ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"type": "string", "enum": ["error"]},
        "error": {
            "type": "object",
            "required": ["type", "message", "code"],
            "properties": {
                "type": {"type": "string", "description": "Follows the status."},
                "message": {"type": "string", "description": "For people; it may change."},
                "code": {"type": "string", "description": "For programs; it is stable."},
            },
        },
        "request_id": {"type": "string"},
    },
}
ERROR_ANSWER = {
    "description": "An error.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
    "description": "The same call again with the same key within a day is answered with the first answer.",
}


def complete(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's hook after the schema is made."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = ERROR
    for name, schema in schemas.items():
        if name.endswith("Request") and schema.get("type") == "object":
            schema["additionalProperties"] = False
    result["paths"]["/api/v1/estimate"] = _describe_estimate()
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            if any("optionalApiKey" in each for each in operation.get("security", ())):
                operation["security"].append({})  # None is needed.
            operation["responses"] |= {"4XX": ERROR_ANSWER, "5XX": ERROR_ANSWER}
            if method == "post" and path not in FREE_OF_EFFECTS:
                operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    return result


def _describe_estimate() -> dict[str, Any]:
    """Return the one operation that the gateway answers, and not this app: `POST /api/v1/estimate`."""
    usd, whole = {"type": "string", "example": "0.0123"}, {"type": "integer"}
    shown = {
        "model": {"type": "string"},
        "currency": {"type": "string"},
        "hold": {**usd, "description": "What is reserved while the request runs: its worst case."},
        "available": {**usd, "description": "What a request may cost now. It may be negative."},
        "is_covered": {
            "type": "boolean",
            "description": "Whether hold fits available. Budgets and rates are not asked.",
        },
        "affordable_max_tokens": {
            **whole,
            "description": "The largest max_tokens that would fit, up to what was sent.",
        },
        "estimated_input_tokens": {**whole, "description": "What the prompt probably has."},
        "max_input_tokens": {**whole, "description": "What the hold covers."},
        "max_tokens": whole,
        "cost_of_input": {**usd, "description": "Of the estimated input, without a word of output."},
        "cost_with_max_tokens": {**usd, "description": "With max_tokens of output."},
        "price_version": whole,
        "factor_ppm": {**whole, "description": "1,000,000 is the published price."},
    }
    data = {"type": "object", "required": list(shown), "properties": shown}
    answer = {"type": "object", "required": ["data"], "properties": {"data": data}}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"type": "string", "enum": ["user", "assistant"]}, "content": {"type": "string"}},
    }
    body = {
        "type": "object",
        "required": ["model", "max_tokens", "messages"],
        "properties": {
            "model": {"type": "string"},
            "max_tokens": {"type": "integer", "minimum": 1},
            "messages": {"type": "array", "minItems": 1, "items": message},
        },
        "description": "The body of POST /v1/messages, with whatever else that takes.",
    }
    return {
        "post": {
            "operationId": "estimate",
            "description": "What the request would hold and cost. Nothing is held, called, kept or billed.",
            "tags": ["estimate"],
            "security": [{"apiKey": []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {"200": {"description": "", "content": {"application/json": {"schema": answer}}}},
        }
    }

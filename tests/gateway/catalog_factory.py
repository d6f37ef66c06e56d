"""Language models that a test sells for itself, with routes to whatever upstream it wants."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billing.models import LanguageModel, Route, Upstream
from tests.support.live_stack import HTTP, LiveStack, Tenant
from tests.support.settled_usage import sell_model


@dataclass(frozen=True)
class SoldModel:
    """`upstream_models` are the names by which the upstreams of its routes know it, in order of the routes."""

    model_id: str
    upstream_models: list[str]
    upstreams: list[str]


def sell_catalog_model(
    stack: LiveStack,
    tenant: Tenant,
    gateways: Sequence[str],
    *,
    upstream_urls: Sequence[str] = (),
    routes: int = 1,
    bills_when_cancelled: bool = False,
    protocol: Upstream.Protocol = Upstream.Protocol.MESSAGES,
    capabilities: Sequence[str] = ("tools", "thinking", "images"),
    expansion_tokens: Mapping[str, int] | None = None,
    **picos: int,
) -> SoldModel:
    """Sell a new model at the prices of Sonnet (and `picos`), and return once all these gateways serve it.

    Each of its routes has an upstream of its own, at the sandbox unless told otherwise.
    """
    own_url = stack.sandbox.url + ("/v1" if protocol == Upstream.Protocol.CHAT_COMPLETIONS else "")
    key_header = "authorization" if protocol == Upstream.Protocol.CHAT_COMPLETIONS else "x-api-key"
    name = "test-" + secrets.token_hex(4)
    version = sell_model(f"test/{name}", **picos)
    LanguageModel.objects.filter(pk=version.language_model_id).update(
        capabilities=list(capabilities), expansion_tokens=dict(expansion_tokens or {})
    )
    sold = SoldModel(f"test/{name}", [], [])
    for position, url in enumerate(upstream_urls or [own_url] * routes):
        upstream = Upstream.objects.create(
            name=f"{name}-{position}",
            protocol=protocol,
            base_url=url,
            bills_when_cancelled=bills_when_cancelled,
            profile={"request_id_header": "x-crossmodel-request-id", "headers": {key_header: "Bearer any"}},
        )
        upstream_model = f"{name}-route-{position}"
        Route.objects.create(
            language_model_id=version.language_model_id,
            upstream=upstream,
            upstream_model=upstream_model,
            position=position,
        )
        sold.upstream_models.append(upstream_model)
        sold.upstreams.append(upstream.name)

    def is_sold() -> bool:
        paths = [f"{gateway}/v1/models/{sold.model_id}" for gateway in gateways]
        return all(HTTP.get(path, headers=tenant.headers).status_code == 200 for path in paths)

    stack.wait_until(is_sold, f"{sold.model_id} is on sale")
    return sold

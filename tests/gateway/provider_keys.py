"""An upstream with two credentials, of which a test may let the provider refuse one."""

from billing.models import Upstream
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.support.live_stack import LiveStack, Tenant

GOOD_KEY, BAD_KEY = "provider-key-that-works", "provider-key-that-does-not"
BOTH_KEYS = {GOOD_KEY[-4:], BAD_KEY[-4:]}
KEYS_VARIABLE = "UPSTREAM_TEST_KEYS"


def sell_with_two_credentials(fragile: LiveStack, tenant: Tenant) -> SoldModel:
    """Sell a model whose upstream has two keys, and return once they are in use."""
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    Upstream.objects.filter(name=sold.upstreams[0]).update(
        credential_env=KEYS_VARIABLE, profile={"request_id_header": "x-crossmodel-request-id"}
    )
    Upstream.objects.get(name=sold.upstreams[0]).save()

    def uses_the_keys() -> bool:
        fragile.post(tenant, model=sold.model_id)
        return bool(keys_used(fragile, sold, "messages") & BOTH_KEYS)

    fragile.wait_until(uses_the_keys, "the keys are in use")
    return sold


def keys_used(fragile: LiveStack, sold: SoldModel, protocol: str) -> set[str | None]:
    """Return the ends of the keys that came with calls of this kind."""
    calls = [call for call in fragile.sandbox.journal() if call.model in sold.upstream_models]
    return {call.key_last4 for call in calls if call.protocol == protocol}

"""What somebody can do about a refusal: the page where the limit, the key or the balance is, if they may open it."""

from typing import NamedTuple

from django.urls import reverse

from accounts.access import Access, Permission
from accounts.models import ApiKey
from billing.budgets.refused import is_limit
from billing.models import RefusedRequest

OF_THE_KEY = frozenset({"key_disabled", "key_expired", "model_not_allowed", "network_not_allowed"})


class NextStep(NamedTuple):
    label: str
    url: str


def next_step(refusal: RefusedRequest, key: ApiKey | None, access: Access) -> NextStep | None:
    """Return the one page that leads on from this refusal, None where there is none for this person."""
    here = {"slug": access.organization.slug}
    code = refusal.error_code
    if code == "insufficient_balance":
        return NextStep("Top up", reverse("top_up_new", kwargs=here)) if access.may(Permission.SEE_BILLING) else None
    if is_limit(code):
        return NextStep("See limits and budgets", reverse("limits", kwargs=here))
    if code in OF_THE_KEY and access.may(Permission.MANAGE_KEYS) and key and access.keys().filter(pk=key.pk).exists():
        return NextStep("Change the key", reverse("key_edit", kwargs={**here, "key_id": key.pk}))
    if code == "model_not_found":
        return NextStep("See the models", reverse("models", kwargs=here))
    return None

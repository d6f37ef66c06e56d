"""Second factors under a new signing key of the site: what one of before sealed is sealed again."""

from allauth.mfa.models import Authenticator

from accounts.models import User
from accounts.sealing import LostSecretError, reseal

PURPOSE = b"crossmodel second factors"
SEALED_FIELDS = ("secret", "seed")  # Of a code generator, and of recovery codes; a passkey has nothing secret here.


def reseal_second_factors(*, is_dry: bool = False) -> tuple[int, list[User]]:
    """Return how many secrets were sealed again, and whose second factor no key opens any more. Again, it is none."""
    resealed, lost = 0, []
    for factor in Authenticator.objects.exclude(type=Authenticator.Type.WEBAUTHN).select_related("user").order_by("pk"):
        try:
            fresh = {
                name: reseal(factor.data[name], purpose=PURPOSE) for name in SEALED_FIELDS if factor.data.get(name)
            }
        except LostSecretError:
            lost.append(factor.user)
            continue
        changes = {name: sealed for name, sealed in fresh.items() if sealed is not None}
        if changes and not is_dry:  # Only what is still there: its owner may change it meanwhile.
            kept = Authenticator.objects.filter(pk=factor.pk, data=factor.data)
            kept.update(data={**factor.data, **changes})
        resealed += len(changes)
    return resealed, lost

"""What is wrong with an upstream's profile. Only the gateway knows that: gateway/apps.py registers its check here."""

from collections.abc import Callable, Mapping
from typing import Any

# Returns what is wrong with a profile, as `field: what`, or "" when nothing is.
ProfileCheck = Callable[[Mapping[str, Any]], str]

_checks: list[ProfileCheck] = []


def register_profile_check(check: ProfileCheck) -> None:
    _checks.append(check)


def profile_problem(profile: Mapping[str, Any]) -> str:
    """Return what is wrong with the profile; "" when every check is content with it."""
    return next((problem for check in _checks if (problem := check(profile))), "")

from collections.abc import Mapping
from typing import Any

from django.apps import AppConfig

from billing.catalog.profiles import register_profile_check
from gateway.protocol.errors import InvalidProfileError
from gateway.protocol.profile import read_profile


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = "Gateway"

    def ready(self) -> None:
        register_profile_check(_profile_problem)


def _profile_problem(profile: Mapping[str, Any]) -> str:
    try:
        read_profile(profile)
    except InvalidProfileError as error:
        return str(error).removeprefix("profile.")
    return ""

"""Asks an upstream whether it is there and takes our credential, by a call that carries nothing of any customer."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from billing.catalog.variables import expand_variables, read_variable
from billing.models import Upstream
from operations.judged_http import Bounds, NoAnswerError, exchange

TOTAL_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024
REFUSED = (401, 403)
# As the gateway checks a credential that was refused: the list of models.
PATHS = {Upstream.Protocol.MESSAGES: "/v1/models", Upstream.Protocol.CHAT_COMPLETIONS: "/models"}
AUTH = {Upstream.Protocol.MESSAGES: "x-api-key", Upstream.Protocol.CHAT_COMPLETIONS: "bearer"}


@dataclass(frozen=True, slots=True)
class CheckedUpstream:
    """`says` is for people; no part of a credential is in it."""

    is_well: bool
    says: str


def without_credential(rows: Iterable[Upstream]) -> list[str]:
    """Return the names of those whose credential, or address, is not set in this process's environment."""
    return [
        row.name
        for row in rows
        if not expand_variables(row.base_url) or (row.credential_env and not read_variable(row.credential_env).strip())
    ]


def check_upstream(upstream: Upstream) -> list[CheckedUpstream]:
    """Call it once with each of its credentials, and say how that went."""
    base_url = expand_variables(upstream.base_url)
    if not base_url:
        return [CheckedUpstream(False, "Its address names a variable that is not set here.")]
    text = read_variable(upstream.credential_env) if upstream.credential_env else ""
    credentials = [part.strip() for part in text.split(",") if part.strip()]
    if upstream.credential_env and not credentials:
        return [CheckedUpstream(False, f"{upstream.credential_env} is not set here.")]
    return [_check(upstream, base_url.rstrip("/"), credential) for credential in credentials or [""]]


def _check(upstream: Upstream, base_url: str, credential: str) -> CheckedUpstream:
    profile = upstream.profile
    url = base_url + (profile.get("credential_check_path") or PATHS[Upstream.Protocol(upstream.protocol)])
    headers = {"accept": "application/json", "user-agent": "CrossModel", **dict(profile.get("headers") or {})}
    if upstream.protocol == Upstream.Protocol.MESSAGES:
        headers.setdefault("anthropic-version", "2023-06-01")
    auth = profile.get("auth") or AUTH[Upstream.Protocol(upstream.protocol)]
    if credential and auth != "none":
        name, value = ("authorization", f"Bearer {credential}") if auth == "bearer" else ("x-api-key", credential)
        headers[name] = value
    bounds = Bounds(tuple(settings.UPSTREAM_NETWORKS), TOTAL_SECONDS, MAX_ANSWER_BYTES)
    began = time.monotonic()
    try:
        status, _ = exchange("GET", url, headers=headers, bounds=bounds)
    except (NoAnswerError, KeyError) as error:
        return CheckedUpstream(False, str(error))
    took = f"in {(time.monotonic() - began) * 1000:.0f} ms"
    if status in REFUSED:
        return CheckedUpstream(False, f"It refuses the credential ({status}, {took}).")
    if status >= 500:
        return CheckedUpstream(False, f"It fails ({status}, {took}).")
    return CheckedUpstream(True, f"It answers ({status}, {took}).")

"""What a production installation must have set. All that is missing is told at once, before anything is served."""

from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

MIN_SECRET_CHARS = 50
MIN_SECRET_DISTINCT_CHARS = 10


def production_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that is missing or too weak to serve strangers with, the variable's name first."""
    return [
        *_secret_problems(settings["SECRET_KEY"]),
        *_address_problems(settings["BASE_URL"], settings["ALLOWED_HOSTS"]),
        *_mail_problems(settings["EMAIL_HOST"], settings["DEFAULT_FROM_EMAIL"]),
        *_payment_problems(settings["PAYMENT_PROVIDER"], settings["PAYMENT_SANDBOX_URL"]),
    ]


def _secret_problems(secret: str) -> list[str]:
    if not secret:
        return ["DJANGO_SECRET_KEY is not set."]
    if len(secret) < MIN_SECRET_CHARS or len(set(secret)) < MIN_SECRET_DISTINCT_CHARS:
        return [f"DJANGO_SECRET_KEY is weak: it needs at least {MIN_SECRET_CHARS} random characters."]
    return []


def _address_problems(base_url: str, allowed_hosts: Sequence[str]) -> list[str]:
    parts = urlsplit(base_url)
    problems = []
    if parts.scheme != "https":
        problems.append(f"CROSSMODEL_BASE_URL must be an https address that people reach; it is {base_url}.")
    if not allowed_hosts:
        problems.append("CROSSMODEL_ALLOWED_HOSTS is not set.")
    elif "*" in allowed_hosts:
        problems.append("CROSSMODEL_ALLOWED_HOSTS must not be *: whoever sends a request chooses its host.")
    elif parts.scheme == "https" and not any(_covers(host, parts.hostname or "") for host in allowed_hosts):
        problems.append(f"CROSSMODEL_ALLOWED_HOSTS must hold the host of CROSSMODEL_BASE_URL, {parts.hostname}.")
    return problems


def _mail_problems(host: str, sender: str) -> list[str]:
    problems = []
    if not host:
        problems.append("CROSSMODEL_EMAIL_HOST is not set: nobody could confirm an address or reset a password.")
    if parseaddr(sender)[1].endswith("@localhost"):
        problems.append(f"CROSSMODEL_FROM_EMAIL must be an address that answers may be sent to; it is {sender}.")
    return problems


def _payment_problems(provider: str, sandbox_url: str) -> list[str]:
    if provider == "sandbox" or sandbox_url:
        return ["CROSSMODEL_PAYMENT_SANDBOX_URL is set: its payments are made up, and their credit is given away."]
    return []


def _covers(pattern: str, host: str) -> bool:
    """Say whether an entry of Django's ALLOWED_HOSTS lets this host in."""
    pattern = pattern.lower()
    return host == pattern or (pattern.startswith(".") and (host == pattern[1:] or host.endswith(pattern)))

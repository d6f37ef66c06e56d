"""Reads settings from the environment and fails loudly, naming the variable, when a value makes no sense."""

import ipaddress
import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from billing.money import NANOS_PER_USD, InvalidAmountError, parse_usd

TRUE_WORDS = {"1", "true", "yes", "on"}
FALSE_WORDS = {"0", "false", "no", "off"}
# Of one machine and of private networks; not those where metadata services of clouds listen.
PRIVATE_NETWORKS = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
ORIGIN = re.compile(r"https?://[^\s/?#@]+")


def read_text(name: str, default: str = "") -> str:
    """Return the variable, or `default` when it is unset or empty."""
    return os.environ.get(name, "").strip() or default


def read_flag(name: str, *, default: bool) -> bool:
    word = read_text(name).lower()
    if not word:
        return default
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ImproperlyConfigured(f"{name} must be one of 1, 0, true, false, yes, no, on, off; it is {word!r}.")


def read_int(name: str, default: int, *, minimum: int = 0, maximum: int = 2**62) -> int:
    word = read_text(name)
    if not word:
        return default
    try:
        number = int(word)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number; it is {word!r}.") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name} must lie between {minimum} and {maximum}; it is {number}.")
    return number


def read_float(name: str, default: float, *, minimum: float = 0.0, maximum: float = 1e9) -> float:
    word = read_text(name)
    if not word:
        return default
    try:
        number = float(word)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number; it is {word!r}.") from None
    if not minimum <= number <= maximum:
        raise ImproperlyConfigured(f"{name} must lie between {minimum} and {maximum}; it is {number}.")
    return number


def read_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    word = read_text(name, default)
    if word not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}; it is {word!r}.")
    return word


def read_usd(name: str, default: str, *, maximum_usd: int) -> str:
    """Return an amount of US dollars, at or above zero, as the decimal text that it is written as."""
    text = read_text(name, default)
    try:
        nanos = parse_usd(text)
    except InvalidAmountError as error:
        raise ImproperlyConfigured(f"{name} must be an amount in US dollars: {error}") from None
    if not 0 <= nanos <= maximum_usd * NANOS_PER_USD:
        raise ImproperlyConfigured(f"{name} must lie between 0 and {maximum_usd}; it is {text}.")
    return text


def read_origin(name: str, default: str) -> str:
    """Return an address of scheme, host and port alone, without a slash at its end."""
    text = read_text(name, default).rstrip("/")
    if not ORIGIN.fullmatch(text):
        raise ImproperlyConfigured(f"{name} must be an address such as https://example.org; it is {text!r}.")
    return text


def read_networks(name: str, default: str = "") -> list[str]:
    """Return a list of addresses and networks, as they are written."""
    texts = read_list(name, default)
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must list addresses and networks; {text!r} is none.") from None
    return texts


def read_list(name: str, default: str = "") -> list[str]:
    return [word.strip() for word in read_text(name, default).split(",") if word.strip()]


def read_env_file(path: Path) -> dict[str, str]:
    """Return the NAME=value lines of a file, or nothing when there is no such file."""
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}

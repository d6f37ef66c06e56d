"""Reads settings from the environment and fails loudly, naming the variable, when a value makes no sense."""

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from billing.money import NANOS_PER_USD, InvalidAmountError, parse_usd

TRUE_WORDS = {"1", "true", "yes", "on"}
FALSE_WORDS = {"0", "false", "no", "off"}
# Of one machine and of private networks; not those where metadata services of clouds listen.
PRIVATE_NETWORKS = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
TAX_COUNTRY = re.compile(r"[A-Z]{2}|\*")
TAX_PERCENT = re.compile(r"([0-9]{1,2})(?:\.([0-9]{1,4}))?")
MOVES_MONEY = ("support", "finance", "operations", "superuser")
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


def database_entry(url: str, connect_timeout_seconds: int) -> dict[str, object]:
    """Return Django's DATABASES entry for `postgresql://user:password@host:port/name?option=value`."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"DATABASE_URL must start with postgresql://; it starts with {parts.scheme!r}.")
    name = unquote(parts.path.lstrip("/"))
    if not name:
        raise ImproperlyConfigured("DATABASE_URL names no database: postgresql://user:password@host:port/NAME.")
    try:
        port = parts.port or 5432
    except ValueError:
        raise ImproperlyConfigured("The port in DATABASE_URL is not a number.") from None
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", unquote(parts.hostname or "")),
        "PORT": port,
        "OPTIONS": {"connect_timeout": connect_timeout_seconds, **options},
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }


def read_networks(name: str, default: str = "") -> list[str]:
    """Return a list of addresses and networks, as they are written."""
    texts = read_list(name, default)
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must list addresses and networks; {text!r} is neither.") from None
    return texts


def read_list(name: str, default: str = "") -> list[str]:
    return [word.strip() for word in read_text(name, default).split(",") if word.strip()]


def read_tax_rates(name: str, default: str = "") -> dict[str, int]:
    """Return rates in parts per million by country from a list such as "DE=19, CH=8.1, *=0"."""
    rates: dict[str, int] = {}
    for word in read_list(name, default):
        country, _, percent = word.partition("=")
        found = TAX_PERCENT.fullmatch(percent.strip())
        if not TAX_COUNTRY.fullmatch(country.strip()) or found is None or country.strip() in rates:
            raise ImproperlyConfigured(f"{name} must list rates such as DE=19, CH=8.1, *=0; {word!r} is not one.")
        rates[country.strip()] = int(found[1]) * 10_000 + int((found[2] or "").ljust(4, "0"))
    return rates


def read_countries(name: str, default: str = "") -> list[str]:
    """Return a list of countries, two capital letters each."""
    countries = read_list(name, default)
    for country in countries:
        if country == "*" or not TAX_COUNTRY.fullmatch(country):
            raise ImproperlyConfigured(f"{name} must list countries such as DE, FR; {country!r} is not one.")
    return countries


def read_pairs(name: str) -> dict[str, str]:
    """Return a list of `left=right` words as a mapping."""
    words = [word.partition("=") for word in read_list(name)]
    if not all(left and right for left, _, right in words):
        raise ImproperlyConfigured(f"{name} must list pairs such as anthropic=ANTHROPIC_ADMIN_API_KEY.")
    return {left: right for left, _, right in words}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the NAME=value lines of a file, or nothing when there is no such file."""
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def read_alone_limits(name: str, default: str) -> dict[str, str]:
    """Return what each staff role moves alone in a day, in US dollars: "support=20, finance=500"."""
    amounts = dict.fromkeys(MOVES_MONEY, "0")
    for word in read_list(name, default):
        role, _, amount = (part.strip() for part in word.partition("="))
        try:
            is_good = role in amounts and parse_usd(amount) >= 0
        except InvalidAmountError:
            is_good = False
        if not is_good:
            roles = ", ".join(MOVES_MONEY)
            raise ImproperlyConfigured(f"{name} must list amounts of {roles}, as support=20; {word!r} is not one.")
        amounts[role] = amount
    return amounts

"""The catalog file: upstreams, language models, routes and prices in one TOML text. Pure.

docs/prices.md describes every field. Nothing is guessed: an unknown field, a missing price and a doubled name are
errors, and all of them are reported at once, each with its line and field.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from billing.catalog.fields import MAX_INTEGER, Problems, Table
from billing.catalog.profiles import ProfileCheck
from billing.catalog.toml_lines import TomlLines
from billing.pricing.cost import (
    CACHE_READ,
    CACHE_WRITE_1H,
    CACHE_WRITE_5M,
    IMAGE,
    INPUT,
    OUTPUT,
    WEB_SEARCH,
    Tiers,
)

SALE = "sale"  # Whoever sells to organizations: us. No upstream may be named so.
PROTOCOLS = ("messages", "chat_completions")
CAPABILITIES = (
    "documents",
    "images",
    "prompt_caching",
    "system_messages",
    "thinking",
    "tools",
    "web_fetch",
    "web_search",
)
# What a provider may add to a prompt, by how much at most: for one document, or one use of a tool.
EXPANSIONS = ("document", "web_fetch", "web_search")
UNIT_FIELDS = {IMAGE: "image_per_thousand", WEB_SEARCH: "web_search_per_thousand"}
# A provider that names no price for cached tokens charges them as any other input.
PRICED_AS_INPUT = (CACHE_WRITE_5M, CACHE_WRITE_1H, CACHE_READ)
MAX_FILE_BYTES = 4 * 1024 * 1024
DEFAULT_MAX_IMAGE_TOKENS = 1600

SLUG = r"[a-z0-9][a-z0-9_-]{0,59}"
MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}"
VARIABLE_NAME = r"[A-Z][A-Z0-9_]{0,99}"
BASE_URL = r"(https?://[^\s@]+|\$\{[A-Z][A-Z0-9_]*\}[^\s@]*)"  # A name or password before an @ is no part of it.


class InvalidCatalogError(ValueError):
    """The file cannot be loaded; `errors` says why, one line each, with line and field."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class UpstreamEntry:
    name: str
    protocol: str
    base_url: str
    credential_env: str
    bills_when_cancelled: bool
    is_sandbox: bool
    is_enabled: bool
    profile: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RouteEntry:
    upstream: str
    upstream_model: str
    position: int
    weight: int


@dataclass(frozen=True, slots=True)
class PriceEntry:
    """What one seller (SALE, or an upstream that charges us) asks; without `effective_from` from its approval on."""

    seller: str
    effective_from: datetime | None
    source: str
    source_date: date
    minimum_charge_nanos: int
    tiers: dict[str, Tiers]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    id: str
    display_name: str
    aliases: tuple[str, ...]
    context_tokens: int
    max_output_tokens: int
    max_image_tokens: int
    expansion_tokens: dict[str, int]
    capabilities: tuple[str, ...]
    released: datetime
    retires: datetime | None
    is_enabled: bool
    routes: tuple[RouteEntry, ...]
    prices: tuple[PriceEntry, ...]  # By date.


@dataclass(frozen=True, slots=True)
class Catalog:
    file_name: str
    upstreams: tuple[UpstreamEntry, ...]
    models: tuple[ModelEntry, ...]


def parse_catalog(text: str, *, file_name: str, check_profile: ProfileCheck = lambda profile: "") -> Catalog:
    """Return the catalog that the text describes. Raises InvalidCatalogError with every problem in it.

    `check_profile` is billing.catalog.profiles.profile_problem, where the gateway is there to be asked.
    """
    if len(text.encode()) > MAX_FILE_BYTES:
        raise InvalidCatalogError([f"{file_name}:1: the file is larger than {MAX_FILE_BYTES} bytes."])
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidCatalogError([_describe_syntax_error(error, text, file_name)]) from None
    problems = Problems(file_name, TomlLines(text))
    root = Table(values, (), problems)
    upstream_tables, model_tables = root.tables("upstream"), root.tables("model")
    root.refuse_unknown_fields()
    upstreams = tuple(_read_upstream(table, check_profile) for table in upstream_tables)
    _refuse_doubles((table, "name", entry.name) for table, entry in zip(upstream_tables, upstreams, strict=True))
    names = {upstream.name for upstream in upstreams}
    models = tuple(_read_model(table, names) for table in model_tables)
    _refuse_doubles(
        (table, field, name)
        for table, entry in zip(model_tables, models, strict=True)
        for field, name in [("id", entry.id), *(("aliases", alias) for alias in entry.aliases)]
    )
    if problems.found:
        raise InvalidCatalogError(problems.sorted_messages())
    return Catalog(file_name, upstreams, models)


def _describe_syntax_error(error: tomllib.TOMLDecodeError, text: str, file_name: str) -> str:
    found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
    if found:
        return f"{file_name}:{found[2]}: {found[1]}, at column {found[3]}."
    return f"{file_name}:{len(text.splitlines()) or 1}: {error}."


def _read_upstream(table: Table, check_profile: ProfileCheck) -> UpstreamEntry:
    entry = UpstreamEntry(
        name=table.text("name", pattern=SLUG, meaning="a short name of a-z, 0-9, - and _"),
        protocol=table.choice("protocol", PROTOCOLS),
        base_url=table.text("base_url", pattern=BASE_URL, meaning="an http(s) address or ${NAME}"),
        credential_env=table.text("credential_env", ""),
        bills_when_cancelled=table.flag("bills_when_cancelled", default=False),
        is_sandbox=table.flag("sandbox", default=False),
        is_enabled=table.flag("enabled", default=True),
        profile=table.mapping("profile"),
    )
    if entry.credential_env and not re.fullmatch(VARIABLE_NAME, entry.credential_env):
        # What was written is not repeated: it may be the secret itself.
        table.problem("credential_env", "names an environment variable, never the secret itself.")
    if entry.name == SALE:
        table.problem("name", f'"{SALE}" means the price that organizations pay.')
    if profile_problem := check_profile(entry.profile):
        table.problem("profile", f"{profile_problem}.")
    table.refuse_unknown_fields()
    return entry


def _read_model(table: Table, upstream_names: set[str]) -> ModelEntry:
    route_tables = table.tables("route")
    routes = tuple(_read_route(route, upstream_names) for route in route_tables)
    _refuse_doubles(
        (route_table, "upstream_model", f"{route.upstream}:{route.upstream_model}")
        for route_table, route in zip(route_tables, routes, strict=True)
    )
    price_tables = [(price_table, _read_price(price_table, upstream_names)) for price_table in table.tables("price")]
    _refuse_doubles(
        (price_table, "effective_from", f"{price.seller} from {price.effective_from or 'approval'}")
        for price_table, price_entries in price_tables
        for price in price_entries
    )
    prices = [price for _, price_entries in price_tables for price in price_entries]
    entry = ModelEntry(
        id=table.text("id", pattern=MODEL_NAME, meaning="a model id"),
        display_name=table.text("display_name", limit=100),
        aliases=table.texts("aliases", pattern=MODEL_NAME),
        context_tokens=table.integer("context_tokens"),
        max_output_tokens=table.integer("max_output_tokens"),
        max_image_tokens=table.integer("max_image_tokens", DEFAULT_MAX_IMAGE_TOKENS, minimum=0),
        expansion_tokens=_read_expansion_tokens(table),
        capabilities=table.texts("capabilities"),
        released=table.moment("released", is_required=True) or datetime.min.replace(tzinfo=UTC),
        retires=table.moment("retires", is_required=False),
        is_enabled=table.flag("enabled", default=True),
        routes=routes,
        prices=tuple(sorted(prices, key=lambda price: (price.effective_from is None, str(price.effective_from)))),
    )
    for capability in entry.capabilities:
        if capability not in CAPABILITIES:
            table.problem("capabilities", f'"{capability}" is not one of {", ".join(CAPABILITIES)}.')
    if not any(price.seller == SALE for price in prices):
        table.problem("price", "is missing: a model without a price cannot be sold.")
    table.refuse_unknown_fields()
    return entry


def expansion_problem(bounds: object) -> str:
    """Return what is wrong with a model's `expansion_tokens`; "" when nothing is."""
    if not isinstance(bounds, dict):
        return "must be a table."
    for name, tokens in bounds.items():
        if name not in EXPANSIONS:
            return f'"{name}" is not one of {", ".join(EXPANSIONS)}.'
        if type(tokens) is not int or not 1 <= tokens <= MAX_INTEGER:
            return f"{name} must be a whole number of tokens from 1 to {MAX_INTEGER}."
    return ""


def _read_expansion_tokens(table: Table) -> dict[str, int]:
    """Return the bounds that the catalog states; what it does not name may fill the whole context window."""
    bounds = table.mapping("expansion_tokens")
    if problem := expansion_problem(bounds):
        table.problem("expansion_tokens", problem)
    return bounds


def _read_route(table: Table, upstream_names: set[str]) -> RouteEntry:
    entry = RouteEntry(
        upstream=table.text("upstream"),
        upstream_model=table.text("upstream_model", limit=200),
        position=table.integer("position", 1, minimum=0, maximum=1000),
        weight=table.integer("weight", 100, minimum=0, maximum=10_000),
    )
    if entry.upstream and entry.upstream not in upstream_names:
        table.problem("upstream", f'"{entry.upstream}" is no [[upstream]] of this file.')
    table.refuse_unknown_fields()
    return entry


def _read_price(table: Table, upstream_names: set[str]) -> list[PriceEntry]:
    """Return one entry for each seller that the prices apply to."""
    sellers = table.texts("applies_to", (SALE,))
    for seller in sellers:
        if seller != SALE and seller not in upstream_names:
            table.problem("applies_to", f'"{seller}" is neither "{SALE}" nor an [[upstream]] of this file.')
    if not sellers:
        table.problem("applies_to", "is empty.")
    effective_from = table.moment("effective_from", is_required=False)
    source, source_date = table.text("source"), table.day("source_date")
    minimum_charge_nanos = table.usd("minimum_charge") if table.has("minimum_charge") else 0
    tiers = _read_tiers(table)
    return [PriceEntry(seller, effective_from, source, source_date, minimum_charge_nanos, tiers) for seller in sellers]


def _read_tiers(table: Table) -> dict[str, Tiers]:
    # A tier must name all that the first one names: a forgotten field would be sold at the price of short prompts.
    named = (INPUT, OUTPUT, *(component for component in PRICED_AS_INPUT if table.has(component)))
    rows = {component: [(0, picos)] for component, picos in _read_token_prices(table, named).items()}
    reached = 0
    for tier in table.tables("tier"):
        prompt_tokens_from = tier.integer("prompt_tokens_from")
        if prompt_tokens_from <= reached:
            tier.problem("prompt_tokens_from", "must be larger than that of the tier before.")
        reached = prompt_tokens_from
        for component, picos in _read_token_prices(tier, named).items():
            rows[component].append((prompt_tokens_from, picos))
        tier.refuse_unknown_fields()
    # Images are counted as input tokens by every provider that names no price for them.
    rows[IMAGE] = [(0, table.usd(UNIT_FIELDS[IMAGE]) if table.has(UNIT_FIELDS[IMAGE]) else 0)]
    if table.has(UNIT_FIELDS[WEB_SEARCH]):
        rows[WEB_SEARCH] = [(0, table.usd(UNIT_FIELDS[WEB_SEARCH]))]
    table.refuse_unknown_fields(also_known=(*PRICED_AS_INPUT, *UNIT_FIELDS.values(), "minimum_charge"))
    return {component: tuple(tiers) for component, tiers in rows.items()}


def _read_token_prices(table: Table, named: tuple[str, ...]) -> dict[str, int]:
    """Return pico-dollars by component; what is cached is priced as input where the provider names no price for it."""
    prices = {component: table.usd_per_million(component) for component in named}
    return {**dict.fromkeys(PRICED_AS_INPUT, prices[INPUT]), **prices}


def _refuse_doubles(names: Iterable[tuple[Table, str, str]]) -> None:
    seen: set[str] = set()
    for table, field, name in names:
        if name and name in seen:
            table.problem(field, f'"{name}" is named twice.')
        seen.add(name)

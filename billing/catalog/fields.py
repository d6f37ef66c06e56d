"""Reads the fields of a TOML table and notes, with line and field, everything that is wrong with them. Pure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from billing.catalog.toml_lines import Path, TomlLines, format_path
from billing.money import InvalidAmountError, parse_usd, parse_usd_per_million
from billing.pricing.cost import MAX_PICOS_PER_UNIT

AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
PRINTABLE = r"[^\x00-\x1f\x7f]+"
MAX_INTEGER = 2**31 - 1


class Problems:
    """Collects what is wrong with one file, each with line and field."""

    def __init__(self, file_name: str, lines: TomlLines) -> None:
        self.file_name = file_name
        self.lines = lines
        self.found: list[tuple[int, str]] = []

    def add(self, path: Path, message: str) -> None:
        line = self.lines.line(path)
        self.found.append((line, f"{self.file_name}:{line}: {format_path(path)}: {message}"))

    def sorted_messages(self) -> list[str]:
        return [message for _, message in sorted(self.found)]


class Table:
    """One table of the file. Every getter notes a problem and returns a harmless value when the field is wrong."""

    def __init__(self, values: Mapping[str, Any], path: Path, problems: Problems) -> None:
        self.path = path
        self._values = values
        self._problems = problems
        self._read: set[str] = set()

    def problem(self, field: str, message: str) -> None:
        self._problems.add((*self.path, field) if field else self.path, message)

    def has(self, field: str) -> bool:
        return field in self._values

    def text(
        self, field: str, default: str | None = None, *, pattern: str = PRINTABLE, meaning: str = "", limit: int = 300
    ) -> str:
        value = self._value(field, default)
        if field not in self._values:
            return default or ""
        if not isinstance(value, str):
            self.problem(field, f"must be a text, not {_kind(value)}.")
        elif len(value) > limit:
            self.problem(field, f"must not be longer than {limit} characters.")
        elif not re.fullmatch(pattern, value):
            self.problem(field, f'"{value}" is not {meaning or "allowed here"}.')
        else:
            return value
        return ""

    def choice(self, field: str, choices: tuple[str, ...]) -> str:
        value = self.text(field)
        if value and value not in choices:
            self.problem(field, f'"{value}" is not one of {", ".join(choices)}.')
        return value

    def flag(self, field: str, *, default: bool) -> bool:
        value = self._value(field, default)
        if isinstance(value, bool):
            return value
        self.problem(field, f"must be true or false, not {_kind(value)}.")
        return default

    def integer(self, field: str, default: int | None = None, *, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        value = self._value(field, default)
        if value is None:
            return minimum
        if type(value) is not int:
            self.problem(field, f"must be a whole number, not {_kind(value)}.")
        elif not minimum <= value <= maximum:
            self.problem(field, f"must lie between {minimum} and {maximum}; it is {value}.")
        else:
            return value
        return minimum

    def texts(self, field: str, default: tuple[str, ...] = (), *, pattern: str = r"\S+") -> tuple[str, ...]:
        values = self._value(field, list(default))
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.problem(field, "must be a list of texts.")
            return ()
        for value in values:
            if not re.fullmatch(pattern, value):
                self.problem(field, f'"{value}" is not allowed here.')
        if len(set(values)) != len(values):
            self.problem(field, "names the same thing twice.")
        return tuple(values)

    def day(self, field: str) -> date:
        value = self._value(field, None)
        if type(value) is date:
            return value
        if value is not None:
            self.problem(field, f"must be a date such as 2026-02-17, not {_kind(value)}.")
        return date.min

    def moment(self, field: str, *, is_required: bool) -> datetime | None:
        """Return a moment in UTC. A date alone is its midnight in UTC."""
        if not is_required and not self.has(field):
            return None
        value = self._value(field, None)
        if type(value) is date:
            return datetime.combine(value, time(), UTC)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        if value is not None:
            self.problem(field, "must be a date, or a time with its offset such as 2026-02-17T00:00:00Z.")
        return None

    def usd(self, field: str) -> int:
        """Return nano-dollars of an amount in US dollars; of an amount for 1,000 units that is pico-dollars of one."""
        return self._amount(field, parse=parse_usd)

    def usd_per_million(self, field: str) -> int:
        """Return pico-dollars per token of an amount in US dollars per million tokens."""
        return self._amount(field, parse=parse_usd_per_million)

    def mapping(self, field: str) -> dict[str, Any]:
        """Return a free table whose values JSON can hold."""
        value = self._value(field, {})
        if not isinstance(value, dict):
            self.problem(field, f"must be a table, not {_kind(value)}.")
            return {}
        if not _is_json(value):
            self.problem(field, "may hold texts, numbers, true, false, lists and tables only.")
            return {}
        return value

    def tables(self, field: str) -> list["Table"]:
        value = self._value(field, [])
        if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
            self.problem(field, f"must be written as [[{format_path((*self.path, field))}]] tables.")
            return []
        return [Table(element, (*self.path, field, index), self._problems) for index, element in enumerate(value)]

    def refuse_unknown_fields(self, *, also_known: tuple[str, ...] = ()) -> None:
        known = {*self._read, *also_known}
        for field in self._values:
            if field not in known:
                self.problem(field, f"is not a known field. Known fields are: {', '.join(sorted(known))}.")

    def _value(self, field: str, default: Any) -> Any:
        self._read.add(field)
        if field not in self._values and default is None:
            self.problem(field, "is missing.")
        return self._values.get(field, default)

    def _amount(self, field: str, *, parse: Any) -> int:
        value = self._value(field, None)
        if value is None:
            return 0
        if not isinstance(value, str):
            self.problem(field, f'must be a decimal number in quotes, such as "3.75", not {_kind(value)}.')
            return 0
        if value.startswith("-"):
            self.problem(field, f'"{value}" is negative.')
            return 0
        if not AMOUNT.fullmatch(value):
            self.problem(field, f'"{value}" is not a decimal number.')
            return 0
        try:
            amount: int = parse(value)
        except InvalidAmountError as error:
            self.problem(field, str(error).replace("'", '"'))
            return 0
        if amount > MAX_PICOS_PER_UNIT:
            self.problem(field, f'"{value}" is larger than any price can be.')
            return 0
        return amount


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_json(element) for element in value.values())
    if isinstance(value, list):
        return all(_is_json(element) for element in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and "\x00" not in value)

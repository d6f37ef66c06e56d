"""The countries of ISO 3166, by the names that people know them by. Stored are their codes of two letters."""

from django_countries import countries


def country_choices() -> list[tuple[str, str]]:
    """Return code and name of every country, by name."""
    return [(str(code), str(name)) for code, name in countries]


def country_name(code: str) -> str:
    """Return the name of a country, or the code itself where it is none of ISO's."""
    return str(countries.name(code)) or code

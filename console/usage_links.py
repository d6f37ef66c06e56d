"""Links between the pages of usage: each is the URL of now with a few words changed. A filter is a word of the URL."""

from dataclasses import dataclass
from urllib.parse import urlencode

from console.forms.usage import GROUPS, UsageForm, name_of

FILTERS = ("model", "key", "member", "end_user", "tag", "session", "outcome")
DAYS = ("period", "first_day", "last_day")
VIEW = ("interval", "group", "metric")


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter in force: `query` is the URL without it."""

    label: str
    value: str
    query: str


class UsageLinks:
    """Makes queries of a valid form. They start with "?" and keep what is not changed; an empty value leaves out."""

    def __init__(self, form: UsageForm) -> None:
        self._form = form
        self._words = {name: form.data[name] for name in (*DAYS, *FILTERS, *VIEW) if form.data.get(name)}

    def query(self, **changes: object) -> str:
        """Return the query with these words changed, in the order of the words."""
        words = {**self._words, **{name: str(value) for name, value in changes.items()}}
        return "?" + urlencode([(name, words[name]) for name in (*DAYS, *FILTERS, *VIEW) if words.get(name)])

    def days(self, first_day: object, last_day: object) -> str:
        return self.query(period="", first_day=first_day, last_day=last_day, interval="")

    def period(self, name: str) -> str:
        return self.query(period=name, first_day="", last_day="", interval="")

    def requests(self, **changes: object) -> str:
        """Return the query by which the list of requests shows the same requests."""
        return self.query(interval="", group="", metric="", **changes)

    def chips(self) -> list[Chip]:
        """Return what is filtered by, in words."""
        return [
            Chip(self._label(name), self._value(name), self.query(**{name: ""}))
            for name in FILTERS
            if self._words.get(name)
        ]

    def without_filters(self) -> str:
        return self.query(**dict.fromkeys(FILTERS, ""))

    def _label(self, name: str) -> str:
        return GROUPS.get(name, name.capitalize())

    def _value(self, name: str) -> str:
        value = self._words[name]
        if name == "key":
            return next((name_of(key) for key in self._form.keys if str(key.pk) == value), value)
        if name == "member":
            return next((key.owner_email or "" for key in self._form.keys if str(key.owner_id) == value), value)
        return str(value)

"""What people ask of the usage page and of the list of requests. Both understand the same words in their URL."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts.models import ApiKey, Organization
from billing.usage.requests import OUTCOMES, RequestFilter
from billing.usage.sums import UsageFilter, used_models
from billing.usage_event import MAX_END_USER_CHARS, MAX_SESSION_CHARS, MAX_TAG_CHARS
from pages.fields import LongChoices, LongSelect
from pages.forms import Form

DEFAULT_PERIOD = "30d"
MAX_DAYS = 366
MAX_DAYS_BY_HOUR = 7
MAX_DAYS_BY_DAY = 92
MAX_KEY_CHOICES = 1000
FIRST_YEAR, END_YEAR = 2000, 2200
# Each with the key that chooses it.
PERIODS = {
    "today": ("Today", "D"),
    "yesterday": ("Yesterday", "E"),
    "7d": ("Last 7 days", "W"),
    "30d": ("Last 30 days", "T"),
    "month": ("Month to date", "M"),
    "last_month": ("Last month", "L"),
    "12mo": ("Last 12 months", "Y"),
}
METRICS = {
    "spend": "Spend",
    "requests": "Billed requests",
    "tokens": "Tokens",
    "cache": "Cache hit rate",
    "latency": "First byte",
}
GROUPS = {
    "model": "Model",
    "key": "Key",
    "member": "Member",
    "end_user": "End user",
    "tag": "Tag",
    "session": "Session",
}
INTERVALS = {"hour": "Hour", "day": "Day", "month": "Month"}


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """What a list says of a key. Of a thousand keys, whole rows would cost more than the rest of the page."""

    pk: int
    name: str
    last_four: str
    revoked_at: datetime | None
    owner_id: int | None
    owner_email: str | None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None


class DayField(forms.DateField):
    """Shows the day that the period means, where none is typed: whoever filters on keeps the days that they see."""

    def bound_data(self, data: Any, initial: Any) -> Any:
        return data or initial


class UsageForm(Form):
    """Everything may be left empty: then it is the last 30 days of everything, by model."""

    period = forms.ChoiceField(required=False, choices=[(name, label) for name, (label, _) in PERIODS.items()])
    first_day = DayField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    last_day = DayField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))
    key = forms.TypedChoiceField(required=False, coerce=int, empty_value=None, label="Key", widget=LongSelect)
    model = forms.ChoiceField(required=False, label="Model", widget=LongSelect)
    member = forms.TypedChoiceField(required=False, coerce=int, empty_value=None, label="Member", widget=LongSelect)
    end_user = forms.CharField(required=False, max_length=MAX_END_USER_CHARS, label="End user")
    tag = forms.CharField(required=False, max_length=MAX_TAG_CHARS, label="Tag")
    session = forms.CharField(required=False, max_length=MAX_SESSION_CHARS, label="Session")
    outcome = forms.ChoiceField(
        required=False, choices=[("", "All"), *((name, name.capitalize()) for name in OUTCOMES)], label="Outcome"
    )
    interval = forms.ChoiceField(required=False, choices=list(INTERVALS.items()))
    group = forms.ChoiceField(required=False, choices=[*GROUPS.items(), ("time", "Time")])
    metric = forms.ChoiceField(required=False, choices=list(METRICS.items()))

    def __init__(self, *args: Any, organization: Organization, **options: Any) -> None:
        super().__init__(*args, **options)
        self.organization = organization
        rows = organization.keys.values_list("pk", "name", "last_four", "revoked_at", "owner_id", "owner__email")
        self.keys = [KeyChoice(*row) for row in rows[:MAX_KEY_CHOICES]]
        today = datetime.now(UTC).date()
        models = used_models(organization, UsageFilter(today - timedelta(days=MAX_DAYS_BY_DAY), today))
        people = {key.owner_id: key.owner_email for key in self.keys if key.owner_email is not None}
        self._choose("key", "All keys", [(str(key.pk), name_of(key)) for key in self.keys])
        self._choose("model", "All models", [(model_id, model_id) for model_id in models])
        self._choose("member", "All members", [(str(pk), email) for pk, email in sorted(people.items())])

    def _choose(self, name: str, everything: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  told to the type checker
        field.choices = LongChoices([("", everything), *choices])
        field.error_messages["invalid_choice"] = f"This organization has no such {name}."

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        if cleaned["period"] and (cleaned["first_day"] or cleaned["last_day"]):
            raise ValidationError("Choose a period or days, not both.")
        typed = [day for day in (cleaned["first_day"], cleaned["last_day"]) if day is not None]
        if not all(FIRST_YEAR <= day.year < END_YEAR for day in typed):
            raise ValidationError("Choose days of this century.")
        first_day, last_day = self._days(cleaned)
        if cleaned["period"]:
            self.initial = {**self.initial, "first_day": first_day, "last_day": last_day}
        if first_day > last_day:
            raise ValidationError("The first day lies after the last one.")
        days = (last_day - first_day).days + 1
        if days > MAX_DAYS:
            raise ValidationError(f"Choose at most {MAX_DAYS} days.")
        interval = cleaned["interval"] or ("hour" if days <= 2 else "day" if days <= MAX_DAYS_BY_DAY else "month")
        if interval == "hour" and days > MAX_DAYS_BY_HOUR:
            raise ValidationError(f"Hours are shown for at most {MAX_DAYS_BY_HOUR} days.")
        if interval == "day" and days > MAX_DAYS_BY_DAY:
            raise ValidationError(f"Days are shown for at most {MAX_DAYS_BY_DAY} days.")
        return {**cleaned, "first_day": first_day, "last_day": last_day, "interval": interval}

    def _days(self, cleaned: dict[str, Any]) -> tuple[date, date]:
        today = datetime.now(UTC).date()
        if cleaned["first_day"] or cleaned["last_day"]:
            last_day = cleaned["last_day"] or max(today, cleaned["first_day"])
            return cleaned["first_day"] or last_day - timedelta(days=29), last_day
        return days_of(cleaned["period"] or DEFAULT_PERIOD, today)

    @property
    def errors_elsewhere(self) -> list[str]:
        """What is wrong with words of the URL that have no field on the page."""
        unseen = ("period", "interval", "group", "metric", "outcome")
        return [f"{name.capitalize()}: {text}" for name in unseen for text in self.errors.get(name, [])]

    @property
    def period_name(self) -> str:
        """The name of the chosen period; "" for days of one's own."""
        if self.data.get("first_day") or self.data.get("last_day"):
            days, today = (self.wanted.first_day, self.wanted.last_day), datetime.now(UTC).date()
            return next((name for name in PERIODS if days_of(name, today) == days), "")
        return str(self.cleaned_data["period"] or DEFAULT_PERIOD)

    @property
    def wanted(self) -> RequestFilter:
        """What a valid form asks for."""
        cleaned = self.cleaned_data
        return RequestFilter(
            first_day=cleaned["first_day"],
            last_day=cleaned["last_day"],
            key_ids=self._key_ids(),
            model_id=cleaned["model"],
            end_user=cleaned["end_user"],
            tag=cleaned["tag"],
            session=cleaned["session"],
            outcome=cleaned["outcome"],
        )

    def _key_ids(self) -> tuple[int, ...] | None:
        key_id, member_id = self.cleaned_data["key"], self.cleaned_data["member"]
        if member_id is not None:
            keys = self.organization.keys.filter(owner=member_id)
            ids = tuple(keys.values_list("pk", flat=True))
            return ids if key_id is None else tuple(pk for pk in ids if pk == key_id)
        return None if key_id is None else (key_id,)


def days_of(period: str, today: date) -> tuple[date, date]:
    """Return the first and the last day of a period of PERIODS."""
    first_of_month = today.replace(day=1)
    if period == "yesterday":
        return today - timedelta(days=1), today - timedelta(days=1)
    if period == "month":
        return first_of_month, today
    if period == "last_month":
        last_day = first_of_month - timedelta(days=1)
        return last_day.replace(day=1), last_day
    if period == "12mo":
        return date(today.year - (today.month < 12), today.month % 12 + 1, 1), today
    days = {"today": 1, "7d": 7, "30d": 30}[period]
    return today - timedelta(days=days - 1), today


def days_before(wanted: UsageFilter) -> tuple[date, date]:
    """Return as many days as the filter has, up to the day before it."""
    return wanted.first_day - timedelta(days=wanted.days), wanted.first_day - timedelta(days=1)


def name_of(key: ApiKey | KeyChoice) -> str:
    return f"{key.name} (…{key.last_four})" + (" · revoked" if key.is_revoked else "")

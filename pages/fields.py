"""Form fields that several pages share. Amounts are typed in US dollars and kept in nano-dollars."""

from collections.abc import Iterator
from html import escape
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.renderers import BaseRenderer
from django.forms.utils import flatatt
from django.utils.choices import BaseChoiceIterator
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from billing.money import InvalidAmountError, format_usd, parse_usd


class UsdField(forms.CharField):
    """An amount of US dollars, at or above zero; cleans to nano-dollars, or None when left empty."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("widget", forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}))
        super().__init__(**options)

    def to_python(self, value: Any) -> Any:
        text = (value or "").strip().removeprefix("$").replace(",", "")
        if not text:
            return None
        try:
            nanos = parse_usd(text)
        except InvalidAmountError:
            raise ValidationError("Enter an amount in US dollars, for example 25 or 0.50.") from None
        if nanos < 0:
            raise ValidationError("The amount cannot be negative.")
        return nanos

    def prepare_value(self, value: Any) -> Any:
        """Return an amount with its separators; what was typed stays as it was typed."""
        if not isinstance(value, int):
            return value
        whole, _, fraction = format_usd(value).partition(".")
        return f"{int(whole):,}.{fraction}"


class LongChoices(BaseChoiceIterator):
    """Options that are pairs of texts already: Django looks through each of a list's when it is given, and twice."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)


class LongSelect(forms.Select):
    """A select that may have a thousand options, in no groups: joined here, where Django has a template for each."""

    def render(
        self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: BaseRenderer | None = None
    ) -> SafeString:
        chosen = self.format_value(value)
        # By html.escape, as format_html takes most of its time to ask of each text whether it is safe already.
        rows = (
            f'<option value="{escape(choice)}"{" selected" if choice in chosen else ""}>{escape(label)}</option>'
            for choice, label in ((str(choice), str(label)) for choice, label in self.choices)
        )
        joined = mark_safe("".join(rows))  # noqa: S308  each text is escaped
        return format_html(
            '<select name="{}"{}>{}</select>', name, flatatt(self.build_attrs(self.attrs, attrs)), joined
        )


class LinesField(forms.CharField):
    """One item a line, or separated by commas; cleans to a list without doubles."""

    def __init__(self, *, max_items: int, widget: type[forms.Textarea] = forms.Textarea, **options: Any) -> None:
        self.max_items = max_items
        super().__init__(widget=widget(attrs={"rows": 3, "spellcheck": "false"}), **options)

    def to_python(self, value: Any) -> Any:
        words = (value or "").replace(",", "\n").split()
        return list(dict.fromkeys(words))

    def validate(self, value: list[str]) -> None:
        if len(value) > self.max_items:
            raise ValidationError(f"At most {self.max_items} lines.")

    def run_validators(self, value: Any) -> None:
        pass

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

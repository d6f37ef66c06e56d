"""Fields of bodies and answers. What comes in is judged strictly: an unknown field is a fault."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.http import Http404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from accounts.one_line import is_one_line
from billing.money import format_usd, parse_usd

USD_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
MAX_LIST_ITEMS = 100
MAX_ID_DIGITS = 18
FLAGS = {"true": True, "1": True, "false": False, "0": False}

Row = TypeVar("Row", bound=Model)


class Body(serializers.Serializer[Any]):
    """A body that a client sends. Its schema says `additionalProperties: false`, and so does this."""

    default_error_messages = {"invalid": "A JSON object: names with their values, in braces."}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError(
                    {str(name)[:100]: ["There is no such field."] for name in unknown[:20]}
                )
        return super().to_internal_value(data)


@extend_schema_field({"type": "string", "pattern": USD_PATTERN, "example": "12.50"})
class UsdField(serializers.Field[int, str, str, Any]):
    """US dollars as a decimal string, at or above zero and below a billion; nano-dollars within."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or not re.fullmatch(USD_PATTERN[1:-1], data):
            raise serializers.ValidationError('A decimal string of US dollars, such as "12.50".')
        return parse_usd(data)

    def to_representation(self, value: int) -> str:
        return format_usd(value)


@extend_schema_field({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2,9}$", "example": "12.50"})
class AmountField(serializers.CharField):
    """An amount in an answer: US dollars, exact, as a decimal string."""


class WholeField(serializers.IntegerField):
    """A whole number: neither a text nor a float stands for one."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError("A whole number.")
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """A text of one line as it was sent: no number or truth value is turned into one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("A text.")
        text = super().to_internal_value(data)
        if not is_one_line(text):
            raise serializers.ValidationError("A text of one line, without characters that cannot be seen.")
        return text


class SwitchField(serializers.BooleanField):
    """true or false, and nothing that is like it."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("true or false.")
        return data


class NetworkField(TextField):
    """A network in CIDR, such as 203.0.113.0/24."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return str(ipaddress.ip_network(text))
        except ValueError as error:
            raise serializers.ValidationError(f"This is not a network: {error}."[:200]) from None


def read_body(body: Body) -> dict[str, Any]:
    """Return what a client sent, judged. Raises ValidationError."""
    body.is_valid(raise_exception=True)
    data: dict[str, Any] = body.validated_data
    return data


def read_flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a parameter that is true or false, and the default where it is not there. Raises ValidationError."""
    text = request.query_params.get(name, str(default)).lower()
    if text not in FLAGS:
        raise serializers.ValidationError({name: ["true or false."]})
    return FLAGS[text]


def find_row(rows: "QuerySet[Row]", prefix: str, text: str) -> Row:
    """Return the row with the id `text`, with or without its prefix. Raises Http404 alike for all that is not there."""
    digits = text.removeprefix(prefix)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_ID_DIGITS):
        raise Http404
    row = rows.filter(pk=int(digits)).first()
    if row is None:
        raise Http404
    return row

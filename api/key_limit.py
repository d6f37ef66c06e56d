"""One spending limit of a key by OpenRouter's names, `limit` and `limit_reset`: one budget, and no other beside it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError

from api.budget_fields import PERIODS
from api.fields import USD_PATTERN, UsdField
from billing.budgets.amounts import Amounts, HasAmounts

MOST_USD = 999_999_999
NEVER = "What never begins anew is not kept here: daily, weekly or monthly, in UTC, weeks from Monday."
BOTH = "Say it by limit and limit_reset or by budgets, not by both."
SEVERAL = "This key has budgets of several periods. Say which is to be its only one by limit_reset, or send budgets."
NO_LIMIT = "This says when limit begins anew. Send limit too."


@extend_schema_field(
    {
        "oneOf": [
            {"type": "number", "minimum": 0, "maximum": MOST_USD},
            {"type": "string", "pattern": USD_PATTERN},
        ],
        "example": 12.5,
    }
)
class LimitField(UsdField):
    """US dollars as a JSON number, as OpenRouter takes them, or as a decimal string; nine decimals at most."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, int | float) and not isinstance(data, bool):
            # The shortest number that reads as this one: what the client wrote.
            data = f"{Decimal(repr(data or 0)):f}".removesuffix(".0")
        return super().to_internal_value(data)


def read_key_limit(data: Mapping[str, Any], key: HasAmounts, *, is_whole: bool) -> Amounts | None:
    """Return the budgets that limit and limit_reset ask for, None where neither is there. Raises ValidationError.

    What of the two a PATCH leaves out is that of the key's one budget. A limit of null is no budget at all.
    """
    if not {"limit", "limit_reset"} & data.keys():
        return None
    if "budgets" in data:
        raise ValidationError({"limit": [BOTH]})
    has: list[str] = []
    if not is_whole:
        has = [period for period, nanos in zip(PERIODS, Amounts.of(key), strict=True) if nanos is not None]
    if "limit" in data:
        limit = data["limit"]
        if limit is None:
            return Amounts()
    else:
        if len(has) != 1:
            raise ValidationError({"limit_reset": [SEVERAL if has else NO_LIMIT]})
        limit = Amounts.of(key)[PERIODS.index(has[0])]
    if "limit_reset" in data:
        period = data["limit_reset"]
    elif len(has) > 1:
        raise ValidationError({"limit": [SEVERAL]})
    else:
        period = has[0] if has else None
    if period is None:
        raise ValidationError({"limit_reset": [NEVER]})
    return Amounts(**{f"{period}_nanos": limit})

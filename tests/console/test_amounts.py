"""How amounts are written. What is shown never makes money appear that is not there, nor a cost smaller than it was."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import MINUS
from pages.templatetags.amounts import (
    balance,
    breakable,
    change,
    cost,
    duration,
    exact,
    factor,
    pad,
    picos_per_million,
    picos_usd,
    shorten_usd,
    thousands,
)
from pages.templatetags.dates import iso, recent

NANOS = st.integers(min_value=-(2**62), max_value=2**62)


@pytest.mark.parametrize(
    ("nanos", "decimals", "text"),
    [
        (0, 2, "$0.00"),
        (4_999_999_999, 2, "$4.99"),
        (1_234_567_890_000_000_001, 2, "$1,234,567,890.00"),
        (-1, 2, f"{MINUS}$0.01"),
        (-1_500_000_000, 2, f"{MINUS}$1.50"),
        (7_000_000_000, 0, "$7"),
        (123, 9, "$0.000000123"),
    ],
)
def test_shortened_amounts_are_rounded_down(nanos: int, decimals: int, text: str) -> None:
    assert shorten_usd(nanos, decimals) == text


@given(NANOS, st.integers(min_value=0, max_value=9))
def test_a_shortened_amount_is_at_most_the_amount_and_near_it(nanos: int, decimals: int) -> None:
    digits = shorten_usd(nanos, decimals).replace("$", "").replace(",", "").replace(MINUS, "-")
    whole, _, fraction = digits.removeprefix("-").partition(".")
    shown = int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)
    shown = -shown if digits.startswith("-") else shown
    assert 0 <= nanos - shown < 10 ** (9 - decimals)


def test_costs_are_rounded_up_and_show_the_exact_amount_on_hover() -> None:
    assert cost(1, 6) == '<data class="amount" value="0.000000001" title="$0.000000001">$0.000001</data>'
    assert ">$2.01<" in cost(2_000_000_001)
    assert ">$0.0201<" in cost(20_000_001)
    assert ">$0.000000<" in cost(0, 6)  # As many decimals as the other rows of its column.


def test_other_amounts() -> None:
    assert ">$4.99<" in balance(4_999_999_999)
    assert ">+$1.00<" in change(10**9, 2)
    assert f">{MINUS}$1.00<" in change(-(10**9), 2)
    assert f">{MINUS}$0.000000001<" in exact(-1)
    assert picos_usd(1) == "$0.000000000001"
    assert picos_usd(1_500_000_000_000) == "$1.50"
    assert picos_per_million(3_000_000) == "$3.00"
    assert picos_per_million(75_000) == "$0.075"
    assert factor(1_000_000) == "1"
    assert factor(925_000) == "0.925"
    assert [duration(ms) for ms in (0, 999, 1000, 12_340, 123_400)] == ["0 ms", "999 ms", "1.0 s", "12.3 s", "123 s"]
    assert breakable("a/<b>") == "a/<wbr>&lt;b&gt;"
    assert [thousands(count) for count in (0, 999, 1_234_567)] == ["0", "999", "1,234,567"]
    assert breakable("key_budget") == "key_<wbr>budget"


def test_exact_amounts_of_a_column_have_the_decimals_of_the_longest() -> None:
    assert (pad("$1.25", 3), pad("0.125", 3), pad("$1.25", 2)) == ("$1.250", "0.125", "$1.25")
    assert picos_usd(10_000_000, 6) == "$0.000010"
    assert ">$0.100000<" in exact(10**8, 6)
    assert ">$1,234,567.00<" in exact(1_234_567 * 10**9)


def test_a_list_says_the_year_of_what_is_of_another() -> None:
    now = datetime.now(UTC)
    assert recent(datetime(now.year, 3, 5, 9, 8, 7, tzinfo=UTC)) == "Mar 5, 09:08"
    assert recent(datetime(2025, 3, 5, 9, 8, 7, tzinfo=UTC), "H:i:s") == "Mar 5, 2025, 09:08:07"
    assert recent(None) == ""
    assert iso(datetime(2025, 3, 5, 9, 8, 7, tzinfo=UTC)) == "2025-03-05T09:08:07+00:00"

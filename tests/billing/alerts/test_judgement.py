"""Conditions by their figures alone: where they begin, where they end, and that wavering between tells nobody twice."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.alerts import judgement
from billing.alerts.judgement import USUAL_DAYS, Finding, Spending, is_near_a_limit, judge, low_balance_of
from billing.days import ORDINAL_OF_EPOCH

USD = 1_000_000_000
MIDMONTH = date(2026, 11, 16).toordinal() - ORDINAL_OF_EPOCH  # A Monday.

QUIET = Spending(
    organization_id=1,
    key_id=0,
    today_nanos=0,
    week_nanos=0,
    month_nanos=0,
    daily_budget_nanos=None,
    weekly_budget_nanos=None,
    monthly_budget_nanos=None,
    budget_warning_percent=80,
    available_nanos=1_000 * USD,
    usual_nanos=8 * USD,
    active_days=8,
    low_balance_nanos=None,
    spike_percent=300,
    spike_minimum_nanos=5 * USD,
)


def found(spending: Spending, *, today: int = MIDMONTH, usual_hold_nanos: int = 0) -> dict[str, Finding]:
    findings = list(judge(spending, today=today, usual_hold_nanos=usual_hold_nanos))
    assert len({(finding.kind, finding.subject) for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def raised(spending: Spending, **options: int) -> list[str]:
    return sorted(kind for kind, finding in found(spending, **options).items() if finding.is_raised)


def test_nothing_is_said_of_a_quiet_organization() -> None:
    assert found(QUIET) == {}
    assert not is_near_a_limit(QUIET, MIDMONTH)


@pytest.mark.parametrize(
    ("cents", "hold_cents", "kinds"),
    [
        (80, 0, []),  # 80 % less a cent of $1.01.
        (81, 0, ["budget_warning"]),
        (100, 0, ["budget_warning"]),
        (101, 0, ["budget_reached"]),
        (150, 0, ["budget_reached"]),
        # What is left does not cover a usual request: the rest will never be spent.
        (90, 12, ["budget_reached"]),
        (90, 11, ["budget_warning"]),
        # A large request alone does not make a budget reached that is hardly touched.
        (50, 60, []),
    ],
)
def test_budgets(cents: int, hold_cents: int, kinds: list[str]) -> None:
    cent = USD // 100
    day = replace(QUIET, today_nanos=cents * cent, daily_budget_nanos=101 * cent)
    assert raised(day, usual_hold_nanos=hold_cents * cent) == kinds


def test_each_period_is_a_matter_of_its_own() -> None:
    spending = replace(
        QUIET,
        today_nanos=9 * USD,
        week_nanos=9 * USD,
        month_nanos=9 * USD,
        daily_budget_nanos=10 * USD,
        weekly_budget_nanos=10 * USD,
        spike_minimum_nanos=100 * USD,
    )
    subjects = {finding.subject for finding in judge(spending, today=MIDMONTH + 1, usual_hold_nanos=0)}
    assert subjects == {f"day:{MIDMONTH + 1}", f"week:{MIDMONTH}"}
    of_key = list(judge(replace(spending, key_id=7), today=MIDMONTH, usual_hold_nanos=0))
    assert {finding.subject for finding in of_key} == {f"key:7:day:{MIDMONTH}", f"key:7:week:{MIDMONTH}"}
    assert {finding.key_id for finding in of_key} == {7}


def test_a_budget_of_nothing_is_no_news() -> None:
    assert found(replace(QUIET, daily_budget_nanos=0)) == {}


@pytest.mark.parametrize(
    ("available", "hold", "kinds"),
    [
        (3 * USD, 0, []),
        (3 * USD - 1, 0, ["low_balance"]),
        (1, 0, ["low_balance"]),
        (0, 0, ["balance_exhausted"]),
        (-5 * USD, 0, ["balance_exhausted"]),
        (2 * USD, 2 * USD + 1, ["balance_exhausted"]),
    ],
)
def test_a_balance_is_low_below_three_usual_days(available: int, hold: int, kinds: list[str]) -> None:
    assert low_balance_of(QUIET) == 3 * USD
    assert raised(replace(QUIET, available_nanos=available), usual_hold_nanos=hold) == kinds


def test_a_chosen_low_balance_counts_and_zero_means_never() -> None:
    chosen = replace(QUIET, available_nanos=99 * USD, low_balance_nanos=100 * USD)
    assert raised(chosen) == ["low_balance"]
    assert raised(replace(chosen, low_balance_nanos=0, available_nanos=1)) == []
    assert low_balance_of(replace(QUIET, usual_nanos=0)) == USD


def test_a_day_is_unusual_at_three_times_the_mean() -> None:
    assert raised(replace(QUIET, today_nanos=5 * USD)) == ["spend_spike"]
    assert raised(replace(QUIET, today_nanos=5 * USD - 1)) == []  # Below the least that matters.
    dear = replace(QUIET, usual_nanos=80 * USD)
    assert raised(replace(dear, today_nanos=30 * USD)) == ["spend_spike"]
    assert raised(replace(dear, today_nanos=30 * USD - 1)) == []
    assert raised(replace(QUIET, today_nanos=500 * USD, active_days=2)) == []  # There is no usual day yet.


def test_a_projection_takes_the_days_that_are_left() -> None:
    """On the 16th of 30 days, at a dollar a day: 15 spent, 15 to come."""
    month = replace(QUIET, month_nanos=15 * USD, monthly_budget_nanos=30 * USD)
    assert found(month)["projected_over_budget"].is_raised is False
    assert found(replace(month, monthly_budget_nanos=30 * USD - 1))["projected_over_budget"].is_raised is True
    assert "projected_over_budget" not in found(replace(month, monthly_budget_nanos=32 * USD))
    # What is used up is told by its own alert.
    assert "projected_over_budget" not in found(replace(month, month_nanos=31 * USD))


def count_tellings(series: Iterable[Spending], hold: int = 0) -> int:
    """Run findings through the rule of the book: open what is raised, close what is not found; count openings."""
    opened: set[tuple[str, str]] = set()
    tellings = 0
    for spending in series:
        findings = list(judge(spending, today=MIDMONTH, usual_hold_nanos=hold))
        opened &= {(finding.kind, finding.subject) for finding in findings}
        new = {(finding.kind, finding.subject) for finding in findings if finding.is_raised} - opened
        tellings += len(new)
        opened |= new
    return tellings


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_a_balance_that_wavers_around_its_mark_is_told_of_once(steps: list[int]) -> None:
    series = [replace(QUIET, available_nanos=3 * USD - 1 + sign * step) for step in steps for sign in (-1, 1)]
    assert count_tellings(series) == 1


def test_without_a_band_a_balance_is_told_of_each_time_it_wavers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(judgement, "BALANCE_BAND_PERCENT", 0)
    series = [replace(QUIET, available_nanos=3 * USD - 1 + sign) for _ in range(10) for sign in (-1, 1)]
    assert count_tellings(series) == 10


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=100))
def test_a_budget_is_told_of_twice_at_most_however_it_is_spent(steps: list[int]) -> None:
    spent = 0
    series = []
    for step in steps:
        spent += step
        series.append(replace(QUIET, today_nanos=spent, daily_budget_nanos=10_000))
    assert count_tellings(series) <= 2


@given(st.integers(0, 20_000), st.integers(1, 20_000), st.integers(0, 20_000))
def test_the_days_are_counted_right(month: int, budget: int, usual: int) -> None:
    spending = replace(QUIET, month_nanos=month, monthly_budget_nanos=budget, usual_nanos=usual)
    for finding in judge(spending, today=MIDMONTH, usual_hold_nanos=0):
        if finding.kind == "projected_over_budget" and finding.is_raised:
            assert month + usual * 15 // USUAL_DAYS > budget

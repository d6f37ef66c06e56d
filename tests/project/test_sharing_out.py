"""How the tests are shared out between processes: names that lead nowhere would let the slowest begin last."""

from tests.support.live_stack import ROOT
from tests.support.sharing_out import FIRST_HALF, LONGEST, SECOND_HALF, TOGETHER, unit_of


def test_what_begins_first_is_there() -> None:
    halves = FIRST_HALF, SECOND_HALF
    assert [unit for unit in (*TOGETHER, *LONGEST) if unit not in halves and not (ROOT / unit).exists()] == []
    assert [unit_of(unit + "::test_it") for unit in LONGEST] == list(LONGEST)


def test_what_shares_a_stack_stays_together() -> None:
    assert unit_of("tests/gateway/test_balance.py::test_a_budget[key-daily]") == FIRST_HALF
    assert unit_of("tests/gateway/test_upstream_pool.py::test_it") == SECOND_HALF
    assert unit_of("tests/gateway/protocol/test_sse.py::test_it") == "tests/gateway/protocol/"
    assert unit_of("tests/console/test_browser.py::test_it[a::b]") == "tests/console/test_browser.py"

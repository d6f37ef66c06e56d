"""How the tests are shared out between processes: names that lead nowhere would let the slowest begin last."""

from tests.support.sharing_out import LONGEST, TOGETHER, unit_of
from tests.support.world import ROOT


def test_what_begins_first_is_there() -> None:
    assert [unit for unit in (*TOGETHER, *LONGEST) if not (ROOT / unit).exists()] == []
    assert [unit_of(unit + "::test_it") for unit in LONGEST] == list(LONGEST)


def test_what_shares_a_world_stays_together() -> None:
    assert unit_of("tests/gateway/test_balance.py::test_a_budget[key-daily]") == "tests/gateway/"
    assert unit_of("tests/gateway/protocol/test_sse.py::test_it") == "tests/gateway/protocol/"
    assert unit_of("tests/console/test_browser.py::test_it[a::b]") == "tests/console/test_browser.py"

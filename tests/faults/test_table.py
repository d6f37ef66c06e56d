"""The table of all runs: each run is counted once, each violation always."""

from typing import Any

import pytest

from tests.faults.table import Rows, TableError, add_runs, find_table, render_table, replace_table

RUN: dict[str, Any] = {
    "fault": "redis_killed",
    "seed": 3,
    "commit": "abc1234",
    "topology": "single",
    "violations": [],
    "counts": {"answers": 100, "complete": 60, "orphan": 2, "provider": 58},
}


def test_runs_add_up_by_fault_and_commit() -> None:
    rows: Rows = {}
    runs = [RUN, {**RUN, "seed": 4}, {**RUN, "seed": 5, "commit": "def5678"}, {**RUN, "topology": "cluster"}]
    assert add_runs(rows, runs) == 0
    assert render_table(rows).splitlines()[2:] == [
        "| `redis_killed` | 3 | abc1234: 3-4; def5678: 5 | 300 | 180 | 6 | 0 |",
        "| `redis_killed on cluster` | 1 | abc1234: 3 | 100 | 60 | 2 | 0 |",
    ]


def test_a_report_that_is_added_twice_counts_once() -> None:
    rows: Rows = {}
    add_runs(rows, [RUN])
    assert add_runs(rows, [RUN]) == 1
    assert rows["redis_killed"].runs == 1


def test_a_known_run_that_breaks_something_is_told() -> None:
    rows: Rows = {}
    add_runs(rows, [RUN])
    assert add_runs(rows, [{**RUN, "violations": ["I3 a", "I5 b"]}]) == 0
    assert (rows["redis_killed"].runs, rows["redis_killed"].violations) == (2, 2)
    table = render_table(rows)
    assert table.splitlines()[-1] == "| `redis_killed` | 2 | abc1234: 3 | 200 | 120 | 4 | 2 (abc1234: 3) |"
    assert render_table(find_table(table)) == table


def test_a_document_keeps_what_it_had() -> None:
    rows: Rows = {}
    add_runs(rows, [RUN])
    document = f"# Before\n\n{render_table(rows)}\nAfter.\n"
    read = find_table(document)
    add_runs(read, [{**RUN, "seed": 4, "fault": "worker_killed"}, {**RUN, "seed": 2}])
    written = replace_table(document, read)
    assert written.startswith("# Before\n\n| fault |")
    assert written.endswith("| `worker_killed` | 1 | abc1234: 4 | 100 | 60 | 2 | 0 |\n\nAfter.\n")
    assert "| `redis_killed` | 2 | abc1234: 2-3 | 200 | 120 | 4 | 0 |\n" in written


def test_a_document_without_the_table_is_refused() -> None:
    with pytest.raises(TableError):
        find_table("# Nothing\n")

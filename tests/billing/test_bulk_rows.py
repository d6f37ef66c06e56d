"""Columns that travel to Postgres as arrays arrive as they were, whatever is in them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.bulk_rows import run_rows

# U+0000 is no text in Postgres; surrogates are no text in UTF-8. Events that hold them never come so far.
TEXTS = st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
BIGINTS = st.none() | st.integers(-(2**63), 2**63 - 1)
ODD = ["", " ", "NULL", "null", "\\", '"', '\\"', "{a,b}", "a,b", "'", "''; --", "%s", "%", "\n\t\r", "é☃🙂", "\\x41"]


def there_and_back(rows: list[tuple[str | None, int | None]]) -> list[tuple[str | None, int | None]]:
    return run_rows("SELECT name, number FROM {rows}", {"name": "text", "number": "bigint"}, rows)


@pytest.mark.django_db
def test_odd_texts_arrive_as_they_were() -> None:
    rows: list[tuple[str | None, int | None]] = [(text, number) for number, text in enumerate(ODD)]
    rows.append((None, None))
    assert there_and_back(rows) == rows


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TEXTS, BIGINTS), min_size=1, max_size=20))
def test_any_rows_arrive_as_they_were(rows: list[tuple[str | None, int | None]]) -> None:
    assert there_and_back(rows) == rows

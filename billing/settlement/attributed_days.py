"""Sums by end user, tag and session, by day, within a bound for each organization and day.

Clients name these as they like, so rows of one organization and day are bounded: the first MAX_EXACT_ROWS combinations
are kept as they are. Those that come later are summed without their session, the next MAX_COARSE_ROWS of them, and then
without anything of their own. No row is ever taken away and only one worker settles an organization at a time, so a
record counts in the first of its three places that has a row: now, and whenever somebody checks it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from billing.bulk_rows import fetch_all, run_rows
from billing.models import AttributedDay
from billing.settlement.events import AcceptedEvent
from billing.usage_event import MAX_END_USER_CHARS, MAX_SESSION_CHARS, MAX_TAG_CHARS, UsageEvent

if TYPE_CHECKING:
    from billing.settlement.corrections import Correction

MAX_EXACT_ROWS = 2_000  # Of one organization and day. Raise it at the beginning of a day only: see above.
MAX_COARSE_ROWS = 1_000
EPOCH_DAY = date(1970, 1, 1)
MS_PER_DAY = 86_400_000
OTHER = AttributedDay.OTHER
KEY_COLUMNS = {
    "organization_id": "bigint",
    "day": "date",
    "end_user": "text",
    "tag": "text",
    "session": "text",
    "key_id": "bigint",
    "model_id": "text",
}
SUM_COLUMNS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_write_tokens",
    "cache_read_tokens",
    "cost_nanos",
    "timed_requests",
    "first_byte_ms",
    "duration_ms",
)
_counts = attrgetter("input_tokens", "output_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")


class Place(NamedTuple):
    """A row: which organization and day, and what of."""

    organization_id: int
    day: date
    end_user: str
    tag: str
    session: str
    key_id: int
    model_id: str

    @property
    def coarse(self) -> "Place":
        return self._replace(session=OTHER)

    @property
    def last(self) -> "Place":
        return self._replace(end_user=OTHER, tag=OTHER, session=OTHER)


def names_anybody(event: UsageEvent) -> bool:
    return bool(event.end_user or event.tag or event.session)


def add_to_attributed_days(inserted: Iterable[AcceptedEvent]) -> None:
    """Add new records that name an end user, a tag or a session."""
    sums: dict[Place, list[int]] = {}
    for item in inserted:
        event = item.event
        if not names_anybody(event):
            continue
        row = sums.setdefault(_place_of(event), [0] * len(SUM_COLUMNS))
        row[0] += 1
        _add(row, [*_counts(event), event.cache_read_tokens, event.cost_nanos])
        if event.first_byte_ms is not None:
            row[6] += 1
            row[7] += event.first_byte_ms
            row[8] += event.total_ms
    _write(sums)


def correct_attributed_days(corrections: Sequence["Correction"]) -> None:
    """Bring the days of corrected requests to what is true, where their orphans were counted."""
    if not corrections:
        return
    by_id = {correction.item.event.request_id: correction for correction in corrections}
    counted = fetch_all(
        """SELECT encode(uuid_send(request_id), 'hex') FROM billing_requestdetail
            WHERE request_id = ANY(%s::uuid[]) AND is_attributed""",
        [list(by_id)],
    )
    sums: dict[Place, list[int]] = {}
    for (request_id,) in counted:
        correction = by_id[request_id]
        orphan, event = correction.orphan, correction.item.event
        place = _place_of(event)._replace(day=orphan.admitted_at.date(), model_id=orphan.model_id)
        row = sums.setdefault(place, [0] * len(SUM_COLUMNS))
        row[0] -= 0 if correction.item.is_billed else 1
        true = [*_counts(event), event.cache_read_tokens]
        _add(row, [now - before for now, before in zip(true, orphan.counts, strict=False)])
        row[5] += correction.difference_nanos
    _write(sums)


def _place_of(event: UsageEvent) -> Place:
    day = EPOCH_DAY + timedelta(days=event.admitted_at_ms // MS_PER_DAY)
    return Place(
        event.organization_id,
        day,
        event.end_user[:MAX_END_USER_CHARS],
        event.tag[:MAX_TAG_CHARS],
        event.session[:MAX_SESSION_CHARS],
        event.key_id,
        event.model_id,
    )


def _add(row: list[int], counts: list[int]) -> None:
    """Add input, output, both kinds of cache writes, cache reads and perhaps the cost, in this order."""
    row[1] += counts[0]
    row[2] += counts[1]
    row[3] += counts[2] + counts[3]
    row[4] += counts[4]
    if len(counts) > 5:
        row[5] += counts[5]


def _write(sums: Mapping[Place, list[int]]) -> None:
    if not sums:
        return
    bounded: dict[Place, list[int]] = {}
    for place, settled in _choose_places(sums).items():
        row = bounded.setdefault(settled, [0] * len(SUM_COLUMNS))
        for index, value in enumerate(sums[place]):
            row[index] += value
    names = ", ".join(SUM_COLUMNS)
    run_rows(
        f"""INSERT INTO billing_attributedday AS rollup ({", ".join(KEY_COLUMNS)}, {names})
            SELECT * FROM {{rows}} ORDER BY {", ".join(KEY_COLUMNS)}
            ON CONFLICT ({", ".join(KEY_COLUMNS)}) DO UPDATE
            SET {", ".join(f"{name} = rollup.{name} + excluded.{name}" for name in SUM_COLUMNS)}""",  # noqa: S608
        {**KEY_COLUMNS, **dict.fromkeys(SUM_COLUMNS, "bigint")},
        [(*place, *row) for place, row in bounded.items()],
    )


def _choose_places(wanted: Collection[Place]) -> dict[Place, Place]:
    """Return where each is summed: in its own place, or in one of the two that stand for many."""
    known = _find(wanted)
    new = sorted(place for place in wanted if place not in known)
    chosen = {place: place for place in known}
    if not new:
        return chosen
    rows = _count_rows({(place.organization_id, place.day) for place in new})
    known |= _find({place.coarse for place in new if rows[place[:2]] >= MAX_EXACT_ROWS} - known)
    for place in new:
        of_day = place[:2]
        if rows[of_day] < MAX_EXACT_ROWS:
            chosen[place] = place
        elif place.coarse in known or rows[of_day] < MAX_EXACT_ROWS + MAX_COARSE_ROWS:
            chosen[place] = place.coarse
        else:
            chosen[place] = place.last
        if chosen[place] not in known and chosen[place] != place.last:
            known.add(chosen[place])
            rows[of_day] += 1
    return chosen


def _find(places: Collection[Place]) -> set[Place]:
    """Return those that have a row."""
    columns = ", ".join(KEY_COLUMNS)
    rows = run_rows(
        f"SELECT {columns} FROM {{rows}} JOIN billing_attributedday USING ({columns})",  # noqa: S608  Constants.
        KEY_COLUMNS,
        sorted(places),
    )
    return {Place(*row) for row in rows}


def _count_rows(days: Collection[tuple[int, date]]) -> dict[tuple[int, date], int]:
    rows = run_rows(
        """SELECT organization_id, day, count(*) FROM {rows} JOIN billing_attributedday USING (organization_id, day)
            GROUP BY 1, 2""",
        {"organization_id": "bigint", "day": "date"},
        sorted(days),
    )
    return defaultdict(int, {(organization_id, day): count for organization_id, day, count in rows})

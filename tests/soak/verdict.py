"""What grew, and whether it may: the first and the last quarter of what was sampled after the start has settled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# Records of use, and keys: they are kept, so they grow with it. What is made new is here or must not grow.
RECORDS = {
    "rows of accounts_apikey",
    "rows of accounts_auditentry",  # One for each change; it is append-only.
    "rows of billing_approval",  # One for each grant, whether it waited or not.
    "rows of billing_budgetday",
    "rows of billing_correction",
    "rows of billing_creditlot",
    "rows of billing_creditlotentry",
    "rows of billing_failedday",
    "rows of billing_failedrequest",
    "rows of billing_ledgerentry",
    "rows of billing_ledgertransaction",
    "rows of billing_refusedrequest",  # Bounded for each key and minute; maintenance deletes those of 30 days ago.
    "rows of billing_requestdetail",
    "rows of billing_attributedday",  # Bounded for each organization and day.
    "rows of billing_refusedday",
    "rows of billing_usageday",
    "rows of billing_usagehour",
    "rows of billing_usagerecord",
    "rows of billing_alert",
    "rows of billing_document",
    "rows of billing_outgoingmail",
    "rows of operations_jobrun",  # One for each job and hour, and one for each failure.
    "rows of django_session",  # Of sign-ins without a sign-out; maintenance deletes those that have expired,
    "rows of usersessions_usersession",  # and what is listed of them.
}
SHARED_CACHE_ROWS = 500  # Counts of failed sign-ins, which expire; the cache culls itself at its bound.
# How much more of each there may be at the end than after the start, in its own unit and in percent of what there was.
ALLOWANCES: dict[str, tuple[float, float]] = {
    "threads": (4, 10),
    "files": (25, 10),
    "MiB": (25, 10),
    "connections": (4, 10),
    "clients": (10, 20),
    "keys": (100, 10),  # Of Redis; each API key that was made has some.
    "accounts_shared_cache": (SHARED_CACHE_ROWS, 0),
}
OTHER = (20.0, 0.0)


@dataclass(frozen=True)
class Growth:
    name: str
    start: float
    end: float
    per_thousand: float  # Answers.
    may_grow: bool
    allowed: float

    @property
    def is_too_much(self) -> bool:
        return not self.may_grow and self.end - self.start > self.allowed


def judge(samples: Sequence[Mapping[str, float]], answers: Sequence[int]) -> list[Growth]:
    """Return how each measurement grew. `answers` is how many had been given at each sample; 8 samples at least.

    The first quarter of the samples is the start, in which pools fill and caches warm up; it is not judged.
    """
    quarter = len(samples) // 4
    if quarter < 2:
        raise ValueError("Eight samples at least make a verdict.")
    early, late = slice(quarter, 2 * quarter), slice(-quarter, None)
    between = max(1.0, median(answers[late]) - median(answers[early]))
    found = []
    for name in samples[-1]:
        start = median(sample.get(name, 0.0) for sample in samples[early])
        end = median(sample.get(name, 0.0) for sample in samples[late])
        least, percent = ALLOWANCES.get(name.rsplit(" ", 1)[-1], OTHER)
        allowed = max(least, start * percent / 100)
        found.append(Growth(name, start, end, (end - start) * 1000 / between, name in RECORDS, allowed))
    return found


def render(growths: Sequence[Growth]) -> str:
    lines = [f"{'':<46}{'start':>12}{'end':>12}{'per 1000':>12}"]
    for each in growths:
        if each.start == each.end == 0:
            continue
        said = "GREW" if each.is_too_much else "record" if each.may_grow else ""
        lines.append(f"{each.name:<46}{each.start:>12.1f}{each.end:>12.1f}{each.per_thousand:>12.2f}  {said}".rstrip())
    return "\n".join(lines)

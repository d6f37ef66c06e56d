"""What Redis is told of an organization or key, as read from Postgres, and how PUBLISH takes it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from billing.admission.names import names_of

# A budget of a month reaches back 31 days; a day more is kept for requests admitted just before midnight.
DAYS_KEPT = 33


@dataclass(frozen=True, slots=True)
class Publication:
    """`member` is "org:<id>" or "key:<id>". `credit_nanos` and `version` are those of the balance; None for a key.

    `expiries` are those of the lots in the credit: see billing.stream.CreditFigure.
    """

    organization_id: int
    member: str
    config_version: int
    config: Mapping[str, str | int]
    today: int
    credit_nanos: int | None = None
    version: int = 0
    expiries: str = ""
    posted_nanos_by_day: Mapping[int, int] = field(default_factory=dict)


def publish_arguments(publication: Publication, *, epoch: str) -> tuple[list[str], list[bytes | str | int]]:
    """Return KEYS and ARGV of PUBLISH. `epoch` is the one that stood before the figures were read from Postgres."""
    names = names_of(publication.organization_id)
    keys = [names.epoch, names.prefix + publication.member, names.index]
    args: list[bytes | str | int] = [
        publication.member,
        publication.config_version,
        "" if publication.credit_nanos is None else publication.credit_nanos,
        publication.version,
        publication.today - DAYS_KEPT,
        len(publication.config),
        epoch,
        publication.expiries,
    ]
    for name, value in publication.config.items():
        args += (name, value)
    for day, nanos in publication.posted_nanos_by_day.items():
        args += (day, nanos)
    return keys, args

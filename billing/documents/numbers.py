"""Numbers without gaps. One statement takes the next number and locks the series until the transaction ends.

Whoever takes a number writes the document in the same transaction: if that is rolled back, the number is free again.
A maximum plus one would be given to two at once, and a sequence of Postgres' would lose numbers with each roll-back.
"""

from django.db import connection

from billing.bulk_rows import fetch_all


def take_number(series: str) -> int:
    """Return the next number of a series. Call it late: whoever else issues such a document waits from then on."""
    if not connection.in_atomic_block:
        raise RuntimeError("A number is taken inside transaction.atomic().")
    rows = fetch_all(
        """INSERT INTO billing_documentseries AS series (name, last_number) VALUES (%s, 1)
            ON CONFLICT (name) DO UPDATE SET last_number = series.last_number + 1 RETURNING last_number""",
        [series],
    )
    return int(rows[0][0])

"""How Postgres answers the statements of a page: which rows of big tables it reads, and of which partitions."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

# These grow with the usage of all organizations together.
BIG = re.compile(
    r"billing_(usagerecord\w*|failedrequest|refusedrequest|requestdetail|usagehour|usageday|attributedday|budgetday"
    r"|usagecorrection|ledgertransaction|ledgerentry|creditlotentry|creditlot)"
)
# An index condition that leads to the rows of one organization, or to single rows.
LEADS_TO_ONE = re.compile(
    r"\b(organization_id|account_id|lot_id|request_id|(ledger_)?transaction_id|id) = |idempotency_key\)::text ~?>=~? "
)
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan", "Sample Scan", "Tid Range Scan"}


@dataclass
class Plans:
    """`wide` says of each scan of a big table that reads others' rows which one it is; `partitions` counts the most
    months of usage records that one statement reads.
    """

    statements: int = 0
    wide: list[str] = field(default_factory=list)
    partitions: int = 0


@contextmanager
def plans_noted() -> Iterator[Plans]:
    """Note the plan of each reading statement inside. Sequential scans are priced out: a test's tables are small."""
    plans = Plans()

    def note(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and BIG.search(sql):
            plans.statements += 1
            with connection.connection.cursor() as cursor:
                cursor.execute("EXPLAIN (FORMAT JSON) " + sql, parameters)
                _read(plans, cursor.fetchone()[0], sql)
        return execute(sql, parameters, many, context)

    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
    try:
        with connection.execute_wrapper(note):
            yield plans
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET enable_seqscan")


def _read(plans: Plans, answer: Any, sql: str) -> None:
    root = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    months: set[str] = set()
    for node, table in _scans(root, ""):
        if not BIG.fullmatch(table):
            continue
        if table.startswith("billing_usagerecord"):
            months.add(table)
        if not LEADS_TO_ONE.search(node.get("Index Cond", "")):
            plans.wide.append(f"{node['Node Type']} of {table} by {node.get('Index Cond')}: {sql[-700:]}")
    plans.partitions = max(plans.partitions, len(months))


def _scans(node: dict[str, Any], table: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each scan with its table: the index part of a bitmap scan has that of its parent."""
    table = node.get("Relation Name", table)
    if node["Node Type"] in SCANS:
        yield node, table
    for child in node.get("Plans", ()):
        yield from _scans(child, table)

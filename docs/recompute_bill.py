"""Recompute an invoice: python recompute_bill.py INVOICE.json USAGE.csv PRICES.json

The invoice and its usage are on the invoice's page; the prices are at /api/v1/prices. Nothing needs to be installed.
"""

import csv
import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

COUNTS = {"input": "input_tokens", "output": "output_tokens", "cache_write_5m": "cache_write_5m_tokens",
          "cache_write_1h": "cache_write_1h_tokens", "cache_read": "cache_read_tokens", "image": "images",
          "web_search": "web_searches"}  # fmt: skip

invoice, prices = (json.loads(Path(sys.argv[place]).read_text(encoding="utf-8")) for place in (1, 3))
versions = {version["price_version_id"]: version for version in prices["data"]}
used: Counter[tuple[str, str]] = Counter()
charged = 0
with Path(sys.argv[2]).open(encoding="utf-8", newline="") as usage:
    for row in csv.DictReader(usage):
        version = versions[int(row["price_version_id"])]
        counts = {name: int(row[column]) for name, column in COUNTS.items() if int(row[column])}
        prompt = sum(counts.get(name, 0) for name in ("input", "cache_write_5m", "cache_write_1h", "cache_read"))
        reached = [price for price in version["components"] if price["prompt_tokens_from"] <= prompt]
        picos_of = {price["component"]: price["picos_per_unit"] for price in reached}  # The highest tier comes last.
        picos = sum(count * picos_of[name] for name, count in counts.items())
        picos = max(picos, version["minimum_charge_nanos"] * 1000) if counts else 0
        cost_nanos = -(-picos * int(row["factor_ppm"]) // 10**9)  # Rounded up, once for each request.
        assert cost_nanos == int(row["cost_nanos"]), f"{row['request_id']} costs {cost_nanos} nano-dollars"
        charged += cost_nanos
        if cost_nanos:
            used.update({(row["model"], name): count for name, count in counts.items()})

billed: Counter[tuple[str, str]] = Counter()
for line in invoice["lines"]:
    if line["kind"] == "usage":
        billed[line["model"], line["component"]] += line["quantity"]
nanos = [(line["kind"], int(Decimal(line["amount_usd"]) * 10**9)) for line in invoice["lines"]]
assert billed == used, "the quantities differ"
assert charged == sum(amount for kind, amount in nanos if kind in ("usage", "rounding")), "the charges differ"
net = (sum(amount for _, amount in nanos) + 5_000_000) // 10_000_000  # In cents, half a cent up.
tax = (net * invoice["tax_rate_ppm"] + 500_000) // 1_000_000
assert [Decimal(invoice[name]) * 100 for name in ("net", "tax", "gross")] == [net, tax, net + tax], "the totals differ"
print(f"{invoice['number']} is right: {invoice['gross']} {invoice['currency']}")

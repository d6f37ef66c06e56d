"""Whether settlement stays as fast as on an empty database when that has many records of former months.

Each size has servers of its own: `python -m bench.settlement_growth --records 100000` prints what was found on one.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.deployment import Deployment

RECORDS, QUICK_RECORDS = (0, 100_000, 1_000_000), (0, 10_000)
ROUNDS = 5
EVENTS = 30_000


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return what `measure_one` found, by the number of records that were there before."""
    return {
        str(records): deployment.run_module("bench.settlement_growth", "--records", str(records), seconds=3_600)
        for records in (QUICK_RECORDS if quick else RECORDS)
    }


def measure_one(records: int) -> dict[str, Any]:
    """Return the median of some rounds of settlement, on servers of its own that have so many records."""
    from bench.run import open_admission, set_up_django

    with tempfile.TemporaryDirectory(prefix="crossmodel-bench-") as folder:
        deployment = Deployment(Path(folder))
        try:
            deployment.start_servers()
            set_up_django(deployment)
            return _settle_rounds(deployment, records, open_admission)
        finally:
            deployment.stop()


def _settle_rounds(deployment: Deployment, records: int, open_admission: Any) -> dict[str, Any]:
    from bench.load_records import load
    from bench.settlement import ORGANIZATIONS, WARM_UP_EVENTS, fill_and_settle
    from bench.tenants import make_tenant

    if records:
        for _ in load(records=records):
            pass
    open_admission()
    tenants = [make_tenant(f"growth {number}", credit_usd="1000") for number in range(ORGANIZATIONS)]
    fill_and_settle(deployment, tenants, total=WARM_UP_EVENTS)
    rounds = [fill_and_settle(deployment, tenants, total=EVENTS) for _ in range(ROUNDS)]
    return {
        "per_second": statistics.median(each["per_second"] for each in rounds),
        "rounds": [each["per_second"] for each in rounds],
        "cpu_ms_per_event": {
            name: statistics.median(each["cpu_ms_per_event"][name] for each in rounds)
            for name in rounds[0]["cpu_ms_per_event"]
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, required=True)
    print(json.dumps(measure_one(parser.parse_args().records)))

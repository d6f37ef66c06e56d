"""What settlement by several workers, of one hot organization and of 10,000 even ones costs, and how fast it is."""

from typing import Any

from bench.deployment import Deployment

EVENTS, QUICK_EVENTS = 60_000, 12_000
EVEN, QUICK_EVEN = 10_000, 1_000
SOME = 128
WORKERS = (1, 2, 4)
ROUNDS = 3


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return the rounds of each shape, which take turns."""
    from bench.settlement import WARM_UP_EVENTS, fill_and_settle
    from bench.tenants import make_tenant

    total, even_count = (QUICK_EVENTS, QUICK_EVEN) if quick else (EVENTS, EVEN)
    even = [make_tenant(f"even {number}", credit_usd="1000") for number in range(even_count)]
    hot, some = [make_tenant("hot", credit_usd="100000")], even[:SOME]
    fill_and_settle(deployment, some, total=WARM_UP_EVENTS)
    shapes: dict[str, tuple[list[Any], int]] = {
        "one hot organization": (hot, 1),
        f"{even_count} even organizations": (even, 1),
        **{f"{SOME} organizations, workers: {workers}": (some, workers) for workers in WORKERS},
    }
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in shapes}
    for _ in range(1 if quick else ROUNDS):
        for name, (tenants, workers) in shapes.items():
            rounds[name].append(fill_and_settle(deployment, tenants, total=total, workers=workers))
    return {"rounds": rounds}

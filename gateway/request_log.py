"""One line on standard output for each request as it is served. It holds nothing that a key could leak by."""

import sys

from django.conf import settings

from billing.money import format_usd
from gateway.metering import MeteredRequest

COST_DECIMALS = 6


def log_request(
    *, method: str, path: str, status: int, duration_ms: float, request_id: str, metered: MeteredRequest | None
) -> None:
    """Write the line, unless CROSSMODEL_REQUEST_LOG is off."""
    if not settings.REQUEST_LOG:
        return
    what = ""
    if metered is not None:
        usage = metered.billed_usage
        cost = format_usd(metered.billed_nanos, min_decimals=COST_DECIMALS)
        what = f" {metered.facts.offered.id} {usage.prompt_tokens} in {usage.output_tokens} out ${cost}"
    safe_path = path if path.isprintable() else ascii(path)
    sys.stdout.write(f"{method} {safe_path} {status}{what} {duration_ms:.0f} ms {request_id}\n")
    sys.stdout.flush()

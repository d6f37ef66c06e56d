"""manage.py replay_spool: tells Redis again of spooled events that Postgres does not have, after it was restored."""

import asyncio
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.admission.client import AdmissionClient
from billing.admission.errors import AdmissionUnavailableError
from gateway.runtime import GatewayRuntime, find_settled_ids
from gateway.spool import SpooledEvent, read_all

BATCH = 5_000
PATIENCE_SECONDS = 60.0  # With Redis, for each event.
PAUSE_SECONDS = 0.5


class Command(BaseCommand):
    help = "Send spooled usage events again that Postgres does not have. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--folder", type=Path, default=settings.DATA_DIR / "spool", help="the spool of a gateway")
        parser.add_argument("--dry-run", action="store_true", help="count them, send nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        events = {event.request_id: event for event in read_all(options["folder"])}
        ids = list(events)
        for start in range(0, len(ids), BATCH):
            for request_id in find_settled_ids(ids[start : start + BATCH]):
                events.pop(request_id, None)
        if not options["dry_run"]:
            asyncio.run(_send(list(events.values())))
        verb = "would be sent" if options["dry_run"] else "sent"
        self.stdout.write(f"{len(ids)} events in the spool, {len(events)} {verb} again.")


async def _send(events: list[SpooledEvent]) -> None:
    """Send each, again for a while where Redis does not answer. Raises CommandError."""
    runtime = GatewayRuntime()
    try:
        for number, spooled in enumerate(events):
            ends_at = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    await _send_one(runtime.admission_client, spooled)
                    break
                except AdmissionUnavailableError as error:
                    if time.monotonic() > ends_at:
                        raise CommandError(
                            f"{number} of {len(events)} events were sent, then: {error} Run it again later:"
                            " none counts twice."
                        ) from error
                    await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await runtime.stop()


async def _send_one(admission: AdmissionClient, spooled: SpooledEvent) -> None:
    input_tokens, output_tokens = spooled.used_tokens()
    await admission.close_hold(
        spooled.as_hold(),
        cost_nanos=spooled.cost_nanos,
        event=spooled.event,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        release=spooled.is_release,
    )

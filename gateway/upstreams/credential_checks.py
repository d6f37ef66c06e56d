"""Whether an upstream refuses one of our credentials for itself, or only refused what a client asked with it.

Only a call that carries nothing of any client can tell: the list of models, asked with the credential. Such a call is
made in the background after an answer that throws doubt on a credential, one at a time and seldom. What it says is the
only reason to suspend a credential, which every organization shares.
"""

import asyncio
import logging
import time

from billing.catalog.snapshot import UsableRoute
from gateway.http.client import UpstreamClient
from gateway.http.errors import UpstreamError
from gateway.protocol.codec import UpstreamCodec
from gateway.protocol.profile import UpstreamProfile
from gateway.upstreams.pool import UpstreamPool, fingerprint

CHECK_SECONDS = 10.0  # How long a check may take.
SECONDS_BETWEEN_CHECKS = 10.0  # Of one credential.
MAX_KNOWN_CREDENTIALS = 1_000
REFUSED = (401, 403)

logger = logging.getLogger(__name__)


class CredentialChecks:
    def __init__(self, client: UpstreamClient, pool: UpstreamPool) -> None:
        self._client = client
        self._pool = pool
        self._checked_at: dict[str, float] = {}
        self._running: set[asyncio.Task[None]] = set()

    def doubt(self, route: UsableRoute, codec: UpstreamCodec, profile: UpstreamProfile, credential: str) -> None:
        """Look into a credential, unless that was done a moment ago."""
        mark = f"{route.upstream_name} {fingerprint(credential)}"
        now = time.monotonic()
        if now - self._checked_at.get(mark, -SECONDS_BETWEEN_CHECKS) < SECONDS_BETWEEN_CHECKS:
            return
        if len(self._checked_at) >= MAX_KNOWN_CREDENTIALS:
            self._checked_at.clear()
        self._checked_at[mark] = now
        task = asyncio.get_running_loop().create_task(self._check(route, codec, profile, credential))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        for task in list(self._running):
            task.cancel()

    async def _check(self, route: UsableRoute, codec: UpstreamCodec, profile: UpstreamProfile, credential: str) -> None:
        call = codec.render_credential_check(profile)
        headers = {**call.headers, **codec.credential_headers(credential, profile)}
        try:
            response = await self._client.get(
                route.base_url + call.path, headers=headers, timeout_seconds=CHECK_SECONDS
            )
            status = response.status
            await response.aclose()
        except UpstreamError as error:
            logger.warning("Upstream %s could not say whether it takes our credential: %s", route.upstream_name, error)
            return
        if status in REFUSED:
            self._pool.suspend_credential(route, credential)

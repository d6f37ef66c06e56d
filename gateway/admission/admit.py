"""The one question to Redis, asked until it has an answer: may this request run, and is its hold written?

What can change from one moment to the next is checked inside ADMIT. What it misses is loaded here, and a key whose copy
is old is read again.
"""

import asyncio
import time
from collections.abc import Sequence

from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.calls.publish import Publication
from billing.admission.client import AdmissionClient
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.hold import Hold
from billing.admission.outbox import read_spender
from billing.budgets.spenders import read_name
from gateway.admission.accounts import KEY, ORGANIZATION, AccountReader
from gateway.admission.identify import AuthenticatedKey, check_restrictions
from gateway.admission.propose import Proposal
from gateway.admission.rate_headers import rate_headers
from gateway.admission.refusals import invalid_key, limit_refusal, rate_refusal, standing_refusal
from gateway.authentication import KeyDirectory, KeyIdentity
from gateway.background import BackgroundWork
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError, unavailable
from gateway.holds import HoldKeeper
from gateway.metering.metered_request import MeteredRequest
from gateway.metering.request_facts import RequestFacts
from gateway.metrics import ADMISSION, observe
from gateway.spool import Spool, SpoolFullError
from gateway.token_estimator import TokensPerByteEstimator

MAX_ADMISSION_ROUNDS = 8  # Two loads and a stale key are usual at most; more means that something changes all the time.


class RequestAdmission:
    """How one gateway process admits requests. It is made once, from those whom it asks."""

    def __init__(
        self,
        *,
        client: AdmissionClient,
        keys: KeyDirectory,
        database: DatabaseThreads,
        hold_keeper: HoldKeeper,
        spool: Spool,
        token_estimator: TokensPerByteEstimator,
        background: BackgroundWork,
    ) -> None:
        self._client = client
        self._keys = keys
        self._database = database
        self._accounts = AccountReader(database)
        self._hold_keeper = hold_keeper
        self._spool = spool
        self._token_estimator = token_estimator
        self._background = background
        self._is_closed = False

    def close(self) -> None:
        """Admit nothing more: this process stops."""
        self._is_closed = True

    async def admit(self, key: AuthenticatedKey, proposal: Proposal) -> tuple[MeteredRequest, dict[str, str]]:
        """Return the admitted request and the rate limit headers of its answer.

        Raises GatewayError; then nothing is held, or its release is under way.
        """
        self._check_room()
        facts, hold = proposal.facts, proposal.hold
        missing = ""
        for _ in range(MAX_ADMISSION_ROUNDS):
            await check_restrictions(self._keys, key, facts.catalog_model)
            started = time.monotonic()
            try:
                answer = await self._client.admit(hold, key_config_version=key.identity.config_version)
                observe(ADMISSION, time.monotonic() - started)
            except AdmissionUnavailableError as error:
                if error.may_have_run:
                    self._release_in_background(facts, hold)
                raise _unavailable() from error
            except asyncio.CancelledError:
                self._release_in_background(facts, hold)  # The client left, and the answer is lost.
                raise
            if isinstance(answer, Admitted):
                hold.day, hold.admitted_at_ms, hold.spenders = answer.day, answer.admitted_at_ms, answer.spenders
                metered = MeteredRequest(facts, hold, self._hold_keeper, self._token_estimator)
                metered.shows_cost = answer.shows_cost
                metered.admission_began = started
                self._hold_keeper.watch(metered)
                return metered, rate_headers(answer.rates, facts.received_at)
            if isinstance(answer, Refused):
                raise limit_refusal(answer, facts, hold)
            missing = answer.reason
            await self._make_ready(key, answer)
        raise _unavailable() from _never_ready(missing)

    async def admit_free(self, key: AuthenticatedKey, *, kind: str, per_minute: int) -> None:
        """Let a request through that costs nothing, if the key lives and may be used from here. Raises GatewayError."""
        missing = ""
        for _ in range(MAX_ADMISSION_ROUNDS):
            await check_restrictions(self._keys, key)
            identity = key.identity
            try:
                answer = await self._client.admit_free(
                    organization_id=identity.organization_id,
                    key_id=identity.key_id,
                    key_config_version=identity.config_version,
                    kind=kind,
                    per_minute=per_minute,
                )
            except AdmissionUnavailableError as error:
                raise _unavailable() from error
            if isinstance(answer, NotReady):
                missing = answer.reason
                await self._make_ready(key, answer)
                continue
            if answer.refused_code:
                raise standing_refusal(answer.refused_code) or rate_refusal(
                    answer.refused_code, per_minute, answer.reset_us, headers={}
                )
            return
        raise _unavailable() from _never_ready(missing)

    def _check_room(self) -> None:
        if self._is_closed:
            raise unavailable("This gateway is shutting down.", code="shutting_down")
        try:
            self._spool.check_room()
        except SpoolFullError as error:
            raise unavailable("Usage cannot be recorded right now.", code="spool_full") from error

    async def _make_ready(self, key: AuthenticatedKey, answer: NotReady) -> None:
        """Bring up to date what ADMIT found missing or old. Raises GatewayError."""
        if answer.reason == "STALE":
            key.identity = await self._keys.reload(key.digest)
            return
        if not answer.reason.startswith("LOAD"):
            raise unavailable("Admission is being rebuilt.", code="admission_rebuilding")
        try:
            publications = await self._read_missing(answer, key.identity)
            for publication in publications:
                if publication is not None:
                    # Where the epoch no longer stands nothing is written, and whoever asks again is told so.
                    await self._client.publish(publication, epoch=answer.epoch)
        except (DatabaseUnavailableError, AdmissionUnavailableError) as error:
            raise unavailable("The account cannot be loaded right now.", code="account_unavailable") from error
        if None in publications:
            raise invalid_key()  # Deleted meanwhile.

    async def _read_missing(self, answer: NotReady, identity: KeyIdentity) -> Sequence[Publication | None]:
        organization_id = identity.organization_id
        if answer.reason == "LOAD org":  # Then its key is missing too, or was read with the organization before.
            return await self._accounts.read((ORGANIZATION, organization_id), (KEY, identity.key_id))
        if answer.reason == "LOAD key":
            return await self._accounts.read((KEY, identity.key_id))
        spender = read_name(answer.reason.removeprefix("LOAD "))
        return [await self._database.run_for(organization_id, read_spender, spender)]

    def _release_in_background(self, facts: RequestFacts, hold: Hold) -> None:
        """Nobody knows whether the hold was written: see to it that it is not."""
        hold.day = int(facts.received_at.timestamp()) // 86_400
        metered = MeteredRequest(facts, hold, self._hold_keeper, self._token_estimator)

        async def release() -> None:
            await metered.release("admission_unanswered")

        self._background.run(release())


def _never_ready(missing: str) -> AdmissionUnavailableError:
    return AdmissionUnavailableError(f"Redis still asked for something after {MAX_ADMISSION_ROUNDS} rounds: {missing}.")


def _unavailable() -> GatewayError:
    return unavailable("Admission is temporarily unavailable.", code="admission_unavailable")

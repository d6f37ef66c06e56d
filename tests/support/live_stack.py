"""A whole CrossModel in processes of its own: gateway, worker with beat, sandbox, on a real Postgres and Redis.

A test speaks to it over HTTP as any client would, and looks at its Postgres and Redis directly.
"""

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from django.conf import settings
from django.db import connections
from pytest_django.plugin import DjangoDbBlocker

from accounts.keys import create_key
from accounts.models import ApiKey, Organization
from accounts.organizations import create_organization
from billing.admission.blocking import reap_shards
from billing.admission.outbox import publish_pending_changes
from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import SHARDS
from billing.admission.settings import AdmissionSettings
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot, FailedRequest, UsageRecord
from billing.money import parse_usd
from billing.request_id import parse_request_id
from crossmodel_site.embedded import RedisServer
from crossmodel_site.embedded.ports import find_free_port
from crossmodel_site.embedded.process import start_child
from crossmodel_site.environment import database_entry
from crossmodel_site.settings import DATABASE_CONNECT_TIMEOUT_SECONDS
from tests.support.databases import create_database
from tests.support.sandbox_process import SandboxServer

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 120.0
QUIET_SECONDS = 30.0
POLL_SECONDS = 0.05
MODEL = "anthropic/claude-sonnet-4.6"

# Everything that waits in production waits less here.
QUICK = {
    "CROSSMODEL_LEASE_SECONDS": "2",
    "CROSSMODEL_HEARTBEAT_SECONDS": "0.2",
    "CROSSMODEL_REOPEN_SECONDS": "0.6",
    "CROSSMODEL_REAPER_GAP_SECONDS": "1",
    "CROSSMODEL_PULSE_SECONDS": "0.2",
    "CROSSMODEL_CATALOG_REFRESH_SECONDS": "0.2",
    "CROSSMODEL_DEFAULT_REQUESTS_PER_MINUTE": "1000000",
    "CROSSMODEL_DEFAULT_CONCURRENT_REQUESTS": "100000",
    "CROSSMODEL_WELCOME_CREDIT_USD": "0",
    # Tests make upstreams fail all the time; those of the breaker set their own.
    "CROSSMODEL_BREAKER_FAILURES": "1000000",
}

# In one process, because most of what a command takes is the start of its process.
PREPARE_DATABASE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("load_catalog", "billing/catalog/default.toml", approve=True)
"""

# Making a client reads all certificates, which takes longer than most calls; no connection outlives its call.
HTTP = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))

T = TypeVar("T")


@dataclass(frozen=True)
class Tenant:
    """An organization with a key: what a test acts as."""

    organization: Organization
    key: ApiKey
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.secret, "anthropic-version": "2023-06-01"}


class LiveStack:
    def __init__(self, folder: Path, *, postgres_url: str, redis_url: str, **overrides: str) -> None:
        self.folder = folder
        self.postgres_url = postgres_url
        self.redis_url = redis_url
        self.port = find_free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.journal_path = folder / "sandbox.jsonl"
        self.spool_path = folder / "var/spool"
        self.sandbox = SandboxServer(journal=self.journal_path)
        self.overrides = overrides
        self.gateway: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    @property
    def spool_paths(self) -> list[Path]:
        return [self.spool_path]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **QUICK,
            "CROSSMODEL_DATA": str(self.folder / "var"),
            "DATABASE_URL": self.postgres_url,
            "REDIS_URL": self.redis_url,
            "CELERY_BROKER_URL": self.overrides.get("CELERY_BROKER_URL", self.redis_url),
            "CROSSMODEL_SANDBOX_URL": self.sandbox.url,
            "PYTHONPATH": str(ROOT),
            **self.overrides,
        }

    @property
    def beat_environment(self) -> dict[str, str]:
        return self.environment

    @property
    def admission_times(self) -> AdmissionSettings:
        """What `settings.ADMISSION` is in its processes."""
        given = {**QUICK, **self.overrides}
        times = dataclasses.asdict(settings.ADMISSION).items()
        return AdmissionSettings(
            **{name: float(given.get(f"CROSSMODEL_{name.upper()}", seconds)) for name, seconds in times}
        )

    # --- processes ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        (self.folder / "var").mkdir(parents=True, exist_ok=True)
        self.sandbox.start()
        self._run_python("-c", PREPARE_DATABASE)
        self.start_worker()  # Both take a while to start, which they do at the same time.
        self.start_gateway()
        with looking_at(self):
            self.wait_until(admission_is_open, "admission is open")

    def stop(self) -> None:
        for process in (self.gateway, self.worker):
            if process is not None:
                end(process, signal.SIGTERM)
                with suppress(ProcessLookupError):  # A worker that had to be killed leaves its beat behind.
                    os.killpg(process.pid, signal.SIGKILL)
        self.sandbox.stop()

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        self.gateway = self.spawn_gateway(self.port, self.environment)
        self.wait_until(self._gateway_answers, "the gateway answers", seconds=START_SECONDS)

    def spawn_gateway(self, port: int, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        return self._spawn(
            "uvicorn", "crossmodel_site.asgi:application", "--port", str(port), "--loop", "uvloop",
            "--http", "gateway.http_protocol:HttpProtocol", "--ws", "none", "--no-access-log",
            "--no-proxy-headers", "--log-level", "warning", environment=environment,
        )  # fmt: skip

    def start_worker(self, *, pool: str = "solo", has_beat: bool = True) -> None:
        self.worker = self.spawn_worker("first", pool=pool, has_beat=has_beat)

    def spawn_worker(self, name: str, *, pool: str = "solo", has_beat: bool = False) -> "subprocess.Popen[bytes]":
        beat = ("--beat", "--schedule", str(self.folder / "var/beat")) if has_beat else ()
        return self._spawn(
            "celery", "-A", "crossmodel_site", "worker", "--hostname", name, "--pool", pool, "--concurrency", "2",
            "--loglevel", "warning", "--without-gossip", "--without-mingle", "--without-heartbeat", *beat,
        )  # fmt: skip

    def start_beat(self) -> "subprocess.Popen[bytes]":
        """Start a beat of its own, which is a second one where the worker has one in it."""
        schedule = str(self.folder / f"var/beat-{secrets.token_hex(4)}")
        return self._spawn(
            "celery", "-A", "crossmodel_site", "beat", "--loglevel", "warning", "--schedule", schedule,
            environment=self.beat_environment,
        )  # fmt: skip

    def manage(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self._run_python(str(ROOT / "manage.py"), *arguments, check=check)

    def _run_python(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        result = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
        return result

    def _spawn(
        self, module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        log = (self.folder / f"{module}.log").open("ab")
        with log:
            return start_child(
                [sys.executable, "-m", module, *arguments],
                environment=self.environment if environment is None else environment,
                folder=ROOT,
                output=log.fileno(),
                death_signal=signal.SIGKILL,
            )

    def _gateway_answers(self) -> bool:
        if self.gateway is not None and self.gateway.poll() is not None:
            raise RuntimeError("the gateway ended:\n" + self.log("uvicorn"))
        try:
            return HTTP.get(self.base_url + "/v1/models").status_code == 401
        except httpx.TransportError:
            return False

    def log(self, module: str) -> str:
        path = self.folder / f"{module}.log"
        return path.read_text()[-4000:] if path.exists() else ""

    # --- tenants ------------------------------------------------------------------------------------------------

    def make_tenant(self, *, credit_usd: str = "10", key: dict[str, Any] | None = None, **organization: Any) -> Tenant:
        """Return a new organization with credit and a key; fields of either may be given."""
        name = "org-" + secrets.token_hex(4)
        payer = create_organization(name=name, fields=organization)
        if parse_usd(credit_usd):
            grant_credit(
                payer,
                amount_nanos=parse_usd(credit_usd),
                kind=CreditLot.Kind.PAID,
                reason="for a test",
                actor="test",
                idempotency_key=f"test:{name}",
            )
        api_key, secret = create_key(payer, name="test", created_by=None, fields=key)
        publish_pending_changes()
        return Tenant(payer, api_key, secret)

    def second_key(self, tenant: Tenant) -> Tenant:
        """Return another key of the same organization."""
        api_key, secret = create_key(tenant.organization, name="second", created_by=None)
        publish_pending_changes()
        return Tenant(tenant.organization, api_key, secret)

    # --- calls --------------------------------------------------------------------------------------------------

    def post(self, tenant: Tenant, text: str = "Hello!", **fields: Any) -> httpx.Response:
        """POST /v1/messages with one user message; `fields` are merged into the body."""
        return HTTP.post(self.base_url + "/v1/messages", headers=tenant.headers, json=body(text, **fields))

    def get(self, tenant: Tenant, path: str) -> httpx.Response:
        return HTTP.get(self.base_url + path, headers=tenant.headers, timeout=10)

    # --- what is to be seen afterwards ----------------------------------------------------------------------------

    def record(self, response: httpx.Response) -> UsageRecord:
        """Return the usage record of a response, as soon as it is settled."""
        request_id = request_id_of(response)
        return self.wait_until(
            lambda: UsageRecord.objects.filter(request_id=request_id).first(), f"usage of {request_id} is settled"
        )

    def failure(self, response: httpx.Response) -> FailedRequest:
        request_id = request_id_of(response)
        return self.wait_until(
            lambda: FailedRequest.objects.filter(request_id=request_id).first(), f"{request_id} is released"
        )

    def records(self, tenant: Tenant) -> list[UsageRecord]:
        return list(UsageRecord.objects.filter(organization_id=tenant.organization.pk))

    def wait_until_quiet(self) -> None:
        """Return once nothing is held and nothing waits for settlement."""
        self.wait_until(
            lambda: not any(shard.waiting_events or shard.holds_in_flight for shard in reap_shards()),
            "nothing is held or waits",
            seconds=QUIET_SECONDS,
        )

    def wait_until(self, condition: Callable[[], T | None], what: str, *, seconds: float = QUIET_SECONDS) -> T:
        ends_at = time.monotonic() + seconds
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > ends_at:
                raise AssertionError(
                    f"Waited {seconds:g} s in vain until {what}.\n{self.log('uvicorn')}{self.log('celery')}"
                )
            time.sleep(POLL_SECONDS)


def request_id_of(response: httpx.Response) -> UUID:
    request_id = parse_request_id(response.headers["request-id"])
    assert request_id is not None
    return request_id


def body(text: str = "Hello!", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 1024, "messages": [{"role": "user", "content": text}], **fields}


def end(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    process.send_signal(number)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def standing_stack(folder: Path, name: str, **overrides: str) -> Iterator[LiveStack]:
    """Start a stack with a database and a Redis of its own, on the session's Postgres; stop it at the end."""
    redis_server = RedisServer(folder / "redis", durable=False)
    redis_server.start()
    postgres_url = create_database(f"{name}_{secrets.token_hex(4)}", is_migrated=True)
    stack = LiveStack(folder, postgres_url=postgres_url, redis_url=redis_server.url, **overrides)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        redis_server.stop()


@contextmanager
def visit(stack: LiveStack, blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    """Look at a standing stack for one test, and leave its sandbox without directives."""
    with blocker.unblock(), looking_at(stack):
        yield stack
    stack.sandbox.clear()


def admission_is_open() -> bool:
    """True once every shard is built, and the wait for gateways to put holds back is over.

    Only looks: a run of ours would go by the leases of production, and let no hold be judged for the next minute.
    """
    opens = [redis_client().get(names.opens) for names in SHARDS if redis_client().exists(names.epoch)]
    return len(opens) == len(SHARDS) and max(int(moment or 0) for moment in opens) < time.time() * 1000


@contextmanager
def looking_at(stack: LiveStack) -> Iterator[None]:
    """Point this process' Django at the stack's Postgres and Redis, and let it keep the stack's times.

    A run from here that knew a longer lease would let all reapers wait for it: the first after a start, for a minute.
    """
    connection = connections["default"]
    previous = dict(connection.settings_dict)
    redis_url, admission = settings.REDIS_URL, settings.ADMISSION
    connection.close()
    connection.settings_dict.update(database_entry(stack.postgres_url, DATABASE_CONNECT_TIMEOUT_SECONDS))
    settings.REDIS_URL, settings.ADMISSION = stack.redis_url, stack.admission_times
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(previous)
        settings.REDIS_URL, settings.ADMISSION = redis_url, admission

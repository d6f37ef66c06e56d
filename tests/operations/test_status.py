"""manage.py status: what an operator is told, and when a person should look."""

import asyncio
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.utils import timezone

from accounts.models import AdmissionChange
from billing.admission.blocking import rebuild_shard
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.topology import AsyncServers, read_topology
from billing.admission.redis_keys import SHARDS
from billing.models import PriceVersion, Route, Upstream, UsageQuarantine
from billing.shards import SHARD_COUNT
from billing.upstream_health.sharing import SharedUpstreamHealth
from gateway.upstreams.pool import UpstreamPool, fingerprint
from operations.gauges import GAUGES
from operations.status import CHECKS, read_status
from operations.traffic import count_traffic
from tests.docs.test_metrics_document import anchors_of
from tests.gateway.test_routing import route
from tests.support.people import People
from tests.support.settled_usage import billed_event, sell_model, settle

pytestmark = pytest.mark.django_db

ROUTE = route(1)


def status(*arguments: str) -> tuple[list[str], int]:
    """Return the lines and the exit code of the command."""
    out = StringIO()
    code = 0
    try:
        call_command("status", *arguments, stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return out.getvalue().splitlines(), code


@pytest.fixture
def _standing(redis_client: redis.Redis, settings: Any, tmp_path: Path) -> None:
    """Let Redis have all shards, and a spool be there in which nothing was set aside."""
    settings.DATA_DIR = tmp_path
    (tmp_path / "spool").mkdir()
    for shard in range(SHARD_COUNT):
        rebuild_shard(shard)
        redis_client.delete(SHARDS[shard].opens)


@pytest.mark.usefixtures("_standing")
def test_a_quiet_crossmodel_needs_nobody() -> None:
    lines, code = status()
    assert code == 0
    use = ("  redis connections: ", "  redis memory: ", "  postgres connections: ")
    assert [sum(line.startswith(name) for line in lines) for name in use] == [1, 1, 1]
    assert [line for line in lines if not line.startswith(("  redis: ", "  spool: ", *use))] == [
        "  events waiting: 0",
        "  settlement lag: 0.0 s",
        "  holds in flight: 0",
        "  unpublished changes: 0",
        "  in quarantine: 0",
        "  months not closed: 0",
        "  breaks open: 0",
        "  mail late: 0",
        "  webhooks late: 0",
        "  lines set aside: 0",
    ]


@pytest.mark.usefixtures("_standing")
def test_machines_are_told_the_same() -> None:
    (lines, code), (text, json_code) = status(), status("--json")
    told = json.loads("\n".join(text))
    assert (code, json_code, told["is_well"]) == (0, 0, True)
    # The room on a disk changes from one look to the next.
    assert [check["name"] for check in told["checks"]] == [line[2:].partition(":")[0] for line in lines]
    steady = [f"  {check['name']}: {check['says']}" for check in told["checks"] if check["name"] != "spool"]
    assert steady == [line for line in lines if not line.startswith("  spool: ")]
    UsageQuarantine.objects.create(raw_event=b"{}", reason="for a test", shard=0, stream_id="1-1")
    told = json.loads("\n".join(status("--json")[0]))
    assert told["is_well"] is False
    [row] = [check for check in told["checks"] if check["needs_a_person"]]
    assert row == {
        "name": "in quarantine", "says": "1", "value": 1, "needs_a_person": True, "runbook": "quarantine"
    }  # fmt: skip


@pytest.mark.usefixtures("_standing")
def test_it_only_looks(redis_client: redis.Redis) -> None:
    before = {name: redis_client.dump(name) for name in redis_client.scan_iter()}
    status()
    assert {name: redis_client.dump(name) for name in redis_client.scan_iter()} == before
    redis_client.flushall()
    status()
    assert list(redis_client.scan_iter()) == [], "it builds no shard"


def fail_to_reach(pool: UpstreamPool) -> None:
    for _ in range(3):
        pool.note_unreachable(ROUTE)


def fail_three_organizations(pool: UpstreamPool) -> None:
    for organization_id in (1, 2, 3):
        for _ in range(3):
            pool.note_failure(ROUTE, organization_id)


def refuse_credential(pool: UpstreamPool) -> None:
    pool.suspend_credential(ROUTE, "key-a")


@pytest.mark.usefixtures("_standing")
@pytest.mark.parametrize(
    ("happens", "line"),
    [
        (fail_to_reach, "breaker open for 5 s, it cannot be reached"),
        (fail_three_organizations, "suspected for 60 s, it fails several organizations"),
        (refuse_credential, f"suspended credential {fingerprint('key-a')} for 300 s"),
        (lambda pool: pool.tell_of_account(ROUTE), "account refused, told for 300 s"),
    ],
)
def test_what_gateways_found_out_about_upstreams(happens: Callable[[UpstreamPool], None], line: str) -> None:
    pool = UpstreamPool(failures_to_open=3)
    happens(pool)
    asyncio.run(tell(pool))
    lines, code = status()
    [noticed] = [text for text in lines if text.startswith("!")]
    told, expected = (re.split(r" (\d+) s\b", text) for text in (noticed, f"! upstream {ROUTE.upstream_name}: {line}"))
    assert (told[0], told[2]) == (expected[0], expected[2])
    assert int(expected[1]) - 5 < int(told[1]) <= int(expected[1])  # Some of it passes until somebody looks.
    assert code == 1


async def tell(pool: UpstreamPool) -> None:
    router = ScriptRouter(
        AsyncServers(read_topology(os.environ["REDIS_URL"]), timeout_seconds=5.0), timeout_seconds=5.0
    )
    await pool.share(SharedUpstreamHealth(router))
    await router.aclose()


@pytest.mark.usefixtures("_standing")
def test_shards_that_are_built_anew_admit_nobody(redis_client: redis.Redis) -> None:
    redis_client.delete(SHARDS[3].epoch, SHARDS[7].epoch)
    assert rebuild_shard(7), "it is built, and waits for gateways to put back what was lost"
    lines, code = status()
    assert ("! shards rebuilding: 2" in lines, code) == (True, 1)
    rebuild_shard(3)
    redis_client.delete(SHARDS[3].opens, SHARDS[7].opens)
    assert status()[1] == 0


@pytest.mark.usefixtures("_standing")
def test_events_that_somebody_has_deleted(redis_client: redis.Redis) -> None:
    redis_client.set(SHARDS[3].vanished, 2)
    redis_client.set(SHARDS[5].vanished, 1)
    lines, code = status()
    assert ("! events vanished: 3 in seven days; gateways sent again what they had" in lines, code) == (True, 1)


def served(version: PriceVersion) -> PriceVersion:
    upstream = Upstream.objects.create(name="acme", protocol="messages", base_url="http://127.0.0.1:9")
    Route.objects.create(language_model=version.language_model, upstream=upstream, upstream_model="x")
    return version


@pytest.mark.usefixtures("_standing")
def test_counts_that_no_provider_can_mean(people: People) -> None:
    key, version = people.key, served(sell_model())
    old = timezone.now() - timedelta(hours=2)
    settle([billed_event(key, version), billed_event(key, version, usage_source="bounded", at=old)])
    assert status()[1] == 0, "check_ledger goes on naming it"
    settle([billed_event(key, version, usage_source="bounded") for _ in range(2)])
    count_traffic(now=timezone.now())
    lines, code = status()
    [line] = [line for line in lines if line.startswith("!")]
    assert line.startswith("! bounded usage: 2 since 20")
    assert code == 1


@pytest.mark.usefixtures("_standing")
def test_a_change_that_redis_does_not_get_to_know(people: People) -> None:
    AdmissionChange.objects.all().delete()
    change = AdmissionChange.objects.create(organization=people.organization)
    assert ("  unpublished changes: 1" in status()[0], status()[1]) == (True, 0)
    AdmissionChange.objects.filter(pk=change.pk).update(created_at=timezone.now() - timedelta(minutes=2))
    assert ("! unpublished changes: 1" in status()[0], status()[1]) == (True, 1)


@pytest.mark.usefixtures("_standing")
def test_lines_of_a_spool_that_were_set_aside(settings: Any) -> None:
    (settings.DATA_DIR / "spool/1-1.rejected").write_bytes(b"one\ntwo\n")
    assert ("! lines set aside: 2" in status()[0], status()[1]) == (True, 1)


@pytest.mark.usefixtures("_standing")
def test_a_disk_that_is_nearly_full(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(settings.DATA_DIR).free
    monkeypatch.setattr("operations.status.FREE_TO_WORRY_BYTES", free * 2)
    lines, code = status()
    [line] = [line for line in lines if line.startswith("!")]
    assert line.startswith("! spool: ") and line.endswith(" MiB free on its disk")
    assert code == 1


@pytest.mark.usefixtures("_standing")
def test_a_machine_without_a_gateway_has_no_spool_to_tell_of(settings: Any) -> None:
    (settings.DATA_DIR / "spool").rmdir()
    lines, code = status()
    assert ([line for line in lines if "spool" in line], code) == ([], 0)


@pytest.mark.usefixtures("_standing")
def test_a_spool_that_cannot_be_read(settings: Any) -> None:
    (settings.DATA_DIR / "spool/1-1.rejected").mkdir()
    lines, code = status()
    assert [line.split(":")[0] for line in lines if line.startswith("!")] == ["! spool"]
    assert code == 1


@pytest.mark.usefixtures("_standing", "redis_away")
def test_what_postgres_knows_is_told_without_redis() -> None:
    lines, code = status()
    assert code == 1
    assert [line.split(":")[0] for line in lines] == [
        "! redis", "  unpublished changes", "  in quarantine", "  months not closed", "  breaks open",
        "  mail late", "  webhooks late", "  postgres connections", "  spool", "  lines set aside",
    ]  # fmt: skip


@pytest.mark.usefixtures("_standing")
def test_models_on_sale_that_nobody_serves(people: People) -> None:
    version = sell_model("acme/large")
    line = "! unserved models: 1: acme/large"
    assert (line in status()[0], status()[1]) == (True, 1)
    served(version)
    assert line not in status()[0]
    Upstream.objects.update(is_enabled=False)
    assert line in status()[0]
    version.language_model.is_enabled = False
    version.language_model.save()
    assert line not in status()[0], "What is not on sale is missed by nobody."


@pytest.mark.usefixtures("_standing")
def test_each_line_leads_to_a_section_of_the_runbook(people: People) -> None:
    """Also those that a healthy CrossModel does not show: they stand in the source of the checks."""
    source = Path(inspect.getsourcefile(read_status) or "").read_text()
    told = {line.runbook for line in read_status()} | set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source))
    assert len(told) > 8
    assert told - {""} <= anchors_of(Path(__file__).parents[2] / "docs/operating.md")
    assert GAUGES.keys() < CHECKS.keys()

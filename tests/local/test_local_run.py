"""`make run` as a person meets it: the screen, the pasted curl, a second terminal, crashes, Ctrl-C, a second start."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import psycopg
import pytest

from tests.support.local_run import LocalRun, clean_environment, descendants, start_and_fail, wait_until_gone
from tests.support.unstalled import UnstalledTime

pytestmark = pytest.mark.timeout(300)

SECOND_START_SECONDS = 10.0
IDLE_SECONDS = 20.0
# How often all processes together wake up, which is what an idle run costs, and is the same on a busy machine.
MOST_IDLE_WAKEUPS_A_SECOND = 200.0
MOST_MEMORY_MIB = 700.0
DEBIT_SECONDS = 10.0


# What other projects and platforms leave in the environment of a shell: none of it is meant for us.
MEANT_FOR_OTHERS = {
    "DJANGO_SETTINGS_MODULE": "another.settings",
    "PGSSLMODE": "require",
    "PGSERVICE": "another",
    "PGHOST": "another.invalid",
    "PGOPTIONS": "-c search_path=another",
    "BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_WORKER_POOL": "another",
    "WEB_CONCURRENCY": "4",
    "UVICORN_ROOT_PATH": "/another",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "TZ": "America/St_Johns",
    "LC_ALL": "C",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    with LocalRun(tmp_path_factory.mktemp("run") / "var", variables=MEANT_FOR_OTHERS) as run:
        yield run


def read_status(run: LocalRun) -> int:
    """Return the status of `/healthz`, 0 when nobody answers."""
    try:
        return httpx.get(f"http://localhost:{run.port}/healthz", timeout=10).status_code
    except httpx.TransportError:
        return 0


def read_credits(run: LocalRun) -> dict[str, object]:
    headers = {"x-api-key": run.demo["CROSSMODEL_API_KEY"]}
    answer = httpx.get(f"{run.demo['CROSSMODEL_BASE_URL']}/api/v1/credits", headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    balance: dict[str, object] = answer.json()["data"]
    return balance


def test_the_screen_says_where_things_are_and_what_answers(run: LocalRun) -> None:
    demo = run.demo
    assert list(demo) == [
        "CROSSMODEL_BASE_URL",
        "CROSSMODEL_API_KEY",
        "CROSSMODEL_CONSOLE_EMAIL",
        "CROSSMODEL_CONSOLE_PASSWORD",
        "CROSSMODEL_ADMIN_EMAIL",
        "CROSSMODEL_ADMIN_PASSWORD",
    ]
    assert demo["CROSSMODEL_BASE_URL"] == f"http://localhost:{run.port}"
    for value in (f"{demo['CROSSMODEL_BASE_URL']}/console/", f"{demo['CROSSMODEL_BASE_URL']}/admin/", *demo.values()):
        assert value in run.text
    assert "The sandbox answers, not a real model" in run.text
    for name in ("demo.env", "servers.env", "secret-key"):
        assert (run.folder / name).stat().st_mode & 0o777 == 0o600


def test_nobody_else_reads_what_a_run_writes(run: LocalRun) -> None:
    """Folders on the way to Postgres' data may be passed through, and not listed."""
    open_to_others = [
        str(path.relative_to(run.folder))
        for path in run.folder.rglob("*")
        if path.stat().st_mode & (0o066 if path.is_dir() else 0o077)
    ]
    assert open_to_others == []
    assert run.folder.stat().st_mode & 0o066 == 0


def test_the_application_is_no_superuser_of_its_postgres(run: LocalRun) -> None:
    servers = dict(line.split("=", 1) for line in (run.folder / "servers.env").read_text().splitlines() if "=" in line)
    with psycopg.connect(servers["DATABASE_URL"]) as connection:
        role = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        )
        assert role.fetchone() == (False, False, False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")


def test_the_curl_works_when_pasted_and_is_debited_once(run: LocalRun) -> None:
    curl = re.search(r"^curl .*?^  }'$", run.text, re.MULTILINE | re.DOTALL)
    assert curl is not None
    before = read_credits(run)["balance"]
    pasted = subprocess.run(
        ["bash", "-c", curl.group(0) + " --silent --show-error --write-out '\n%{http_code}'"],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    body, status = pasted.stdout.rsplit("\n", 1)
    message = orjson.loads(body)
    assert status == "200", body
    assert (message["type"], message["model"]) == ("message", "anthropic/claude-sonnet-4.6")
    deadline = time.monotonic() + DEBIT_SECONDS
    while (after := read_credits(run)["balance"]) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert after != before
    assert any("claude-sonnet-4.6" in line for line in run.lines[-5:]), "a line per request"


def test_commands_in_a_second_terminal_find_the_servers(run: LocalRun) -> None:
    answer = run.manage("check_ledger")
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stdout


def test_mail_is_shown_with_its_link(run: LocalRun) -> None:
    with httpx.Client(base_url=run.demo["CROSSMODEL_BASE_URL"], follow_redirects=True) as client:
        client.get("/accounts/password/reset/")
        answer = client.post(
            "/accounts/password/reset/",
            data={
                "email": run.demo["CROSSMODEL_CONSOLE_EMAIL"],
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
            },
        )
        assert answer.status_code == 200
        deadline = time.monotonic() + 10
        while "mail to demo@example.com" not in run.text and time.monotonic() < deadline:
            time.sleep(0.1)
        shown = re.search(r"^mail to demo@example\.com: .*?(http://localhost:\S+)$", run.text, re.MULTILINE)
        assert shown is not None, run.text
        assert client.get(shown.group(1)).status_code == 200


def test_a_second_run_on_the_same_folder_is_refused_in_one_line(run: LocalRun) -> None:
    before = run.processes()
    complaint = start_and_fail(run.folder, {"PORT": str(run.port + 1)})
    assert complaint == (
        f"Another `make run` (process {run.pid}) uses the data folder {run.folder}; set CROSSMODEL_DATA to another."
    )
    assert run.processes() == before
    assert read_status(run) == 200


@pytest.mark.parametrize("name", ["gateway", "pages", "worker", "beat", "sandbox", "Postgres", "Redis"])
def test_what_is_killed_comes_back(run: LocalRun, name: str) -> None:
    pid = run.processes()[name]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while run.processes().get(name, pid) == pid and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.processes()[name] != pid
    assert f"{name} was killed (SIGKILL); starting it again" in run.text
    while read_status(run) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert read_status(run) == 200


@pytest.mark.long
def test_ctrl_c_ends_every_process_and_a_second_start_finds_its_data_again(tmp_path: Path) -> None:
    run = LocalRun(tmp_path / "var").start()
    demo, started = run.demo, descendants(run.pid)
    assert len(started) >= 6
    assert run.stop(signal.SIGINT) == 0
    assert wait_until_gone(started) == set()

    taken = UnstalledTime()
    run.start()
    seconds = taken.seconds
    started = descendants(run.pid)
    assert run.demo == demo
    assert run.stop(signal.SIGTERM) == 0
    assert wait_until_gone(started) == set()
    assert seconds < SECOND_START_SECONDS


@pytest.mark.long
def test_a_run_in_the_background_of_a_script_stops_too(tmp_path: Path) -> None:
    """There the shell makes it ignore SIGINT, and nohup SIGHUP; SIGINT is obeyed all the same, SIGHUP is not."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        run = LocalRun(tmp_path / "var").start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    started = descendants(run.pid)
    os.kill(run.pid, signal.SIGHUP)
    assert wait_until_gone({run.pid}, seconds=2) == {run.pid}
    assert run.stop(signal.SIGINT) == 0
    assert wait_until_gone(started) == set()


@pytest.mark.long
def test_nothing_outlives_a_launcher_that_was_killed(tmp_path: Path) -> None:
    run = LocalRun(tmp_path / "var").start()
    demo, started = run.demo, descendants(run.pid)
    run.stop(signal.SIGKILL)
    assert wait_until_gone(started) == set()
    with run:
        assert run.demo == demo


@pytest.mark.long
def test_costs_little_when_idle(run: LocalRun) -> None:
    """Wake-ups of all processes together, and their memory, each shared page counted once."""
    time.sleep(5)
    processes = {run.pid, *descendants(run.pid)}
    before = {pid: count_wakeups(pid) for pid in processes}
    time.sleep(IDLE_SECONDS)
    wakeups = {pid: (count_wakeups(pid) - earlier) / IDLE_SECONDS for pid, earlier in before.items()}
    assert sum(wakeups.values()) < MOST_IDLE_WAKEUPS_A_SECOND, wakeups
    assert sum(read_pss_mib(pid) for pid in processes) < MOST_MEMORY_MIB


def count_wakeups(pid: int) -> int:
    """How often the threads of a process have waited for something since it began; of threads that ended, nothing."""
    statuses = (task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(
        int(count) for status in statuses for count in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)
    )


def read_pss_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # Postgres starts and ends processes for its own housekeeping.
        return 0.0
    return int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) / 1024

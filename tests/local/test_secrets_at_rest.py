"""What a run leaves on its disk: no key, prompt, reply, password or token in the clear, in any file of any process.

Postgres' tables and log of writes, Redis' log, the spool, metrics, and all that is printed are searched byte by byte.
"""

import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.local_run import LocalRun

pytestmark = pytest.mark.long
# What is there on purpose: what the run tells its owner, mail that was sent, and what stands for a provider.
ON_PURPOSE = ("demo.env", "servers.env", "secret-key", "mail/", "sandbox-")
MODEL = "anthropic/claude-sonnet-4.6"
SETTLED_SECONDS = 30.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    with LocalRun(tmp_path_factory.mktemp("secrets") / "var") as run:
        yield run


def test_nothing_secret_is_left_in_the_clear(run: LocalRun) -> None:
    marks = {"prompt": f"prompt-{secrets.token_hex(12)}", "wrong password": f"wrong-{secrets.token_hex(12)}"}
    demo = run.demo
    marks |= {"key": demo["CROSSMODEL_API_KEY"], "password": demo["CROSSMODEL_CONSOLE_PASSWORD"]}
    marks["operator's password"] = demo["CROSSMODEL_ADMIN_PASSWORD"]
    with httpx.Client(base_url=demo["CROSSMODEL_BASE_URL"], follow_redirects=True, timeout=60) as client:
        marks |= ask_models(client, demo["CROSSMODEL_API_KEY"], marks["prompt"])
        marks |= use_console(client, demo, marks["wrong password"])
        marks |= manage(client, marks["management key"])
    marks |= {f"link of mail {number}": token for number, token in enumerate(tokens_of_mails(run.folder / "mail"))}
    assert len(marks) >= 12
    wait_until_settled(run)
    found = {what: places for what, text in marks.items() if (places := files_with(run, text))}
    assert found == {}
    shown = set(run.demo.values())  # And links of mail, which have no other way to their reader here.
    printed = {what for what, text in marks.items() if text in run.text and text not in shown}
    assert {what for what in printed if not what.startswith("link of mail")} == set()


def ask_models(client: httpx.Client, key: str, mark: str) -> dict[str, str]:
    """Ask whole, streamed, twice under one idempotency key, and wrongly, also of an upstream that fails."""
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    asked = {
        "model": MODEL,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": f"Repeat {mark}, and write a long story."}],
        "metadata": {"user_id": "someone"},
    }
    whole = client.post("/v1/messages", json=asked, headers={**headers, "idempotency-key": "once"})
    again = client.post("/v1/messages", json=asked, headers={**headers, "idempotency-key": "once"})
    assert (whole.status_code, again.content) == (200, whole.content)
    assert client.post("/v1/messages", json={**asked, "stream": True}, headers=headers).status_code == 200
    for wrong in ({"model": "acme/none"}, {"max_tokens": mark}, {"messages": [{"role": mark, "content": mark}]}):
        assert client.post("/v1/messages", json={**asked, **wrong}, headers=headers).status_code in (400, 404)
    failing = [{"role": "user", "content": f"[[sandbox: error=500]] {mark}"}]
    client.post("/v1/messages", json={**asked, "messages": failing}, headers=headers)
    wrong_key = f"cm-{secrets.token_urlsafe(36)}"
    assert client.post("/v1/messages", json=asked, headers={"x-api-key": wrong_key}).status_code == 401
    reply = max((block.get("text", "") for block in whole.json()["content"]), key=len)
    return {"reply": reply[5:55], "wrong key": wrong_key}


def use_console(client: httpx.Client, demo: dict[str, str], wrong_password: str) -> dict[str, str]:
    """Sign in wrongly and rightly, ask for a new password, and make keys of both kinds and a webhook."""
    email = demo["CROSSMODEL_CONSOLE_EMAIL"]
    submit(client, "/accounts/password/reset/", {"email": email})
    submit(client, "/accounts/login/", {"login": email, "password": wrong_password})
    page = submit(client, "/accounts/login/", {"login": email, "password": demo["CROSSMODEL_CONSOLE_PASSWORD"]})
    match = re.search(r"/console/([\w-]+)/", str(page.url))
    assert match, page.url
    base = match[0]
    management = secret_on(submit(client, f"{base}keys/management/", {"name": "All", "role": "owner"}))
    ordinary = secret_on(submit(client, f"{base}keys/new/", {"name": "Own"}))
    submit(client, f"{base}members/", {"email": "invited@example.org", "role": "viewer"})
    return {"management key": management, "key of the console": ordinary}


def manage(client: httpx.Client, key: str) -> dict[str, str]:
    """Make and rotate a key and a webhook over the API, each under an idempotency key."""
    made = {}
    for what, path, body in (
        ("key of the API", "keys", {"name": "By a program"}),
        ("webhook secret", "webhooks", {"url": "https://hooks.example.org/x", "kinds": ["low_balance"]}),
    ):
        headers = {"authorization": f"Bearer {key}", "idempotency-key": what}
        answer = client.post(f"/api/v1/{path}", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        made[what] = next(re.finditer(r"(?:cm-|whsec_)[A-Za-z0-9_+/=-]{20,}", answer.text))[0]
    return made


def submit(client: httpx.Client, path: str, values: dict[str, str]) -> httpx.Response:
    page = client.get(path)
    form_id = re.search(r'name="form_id" value="([^"]+)"', page.text)
    extra = {"form_id": form_id[1]} if form_id else {}
    return client.post(path, data={**values, **extra, "csrfmiddlewaretoken": client.cookies["csrftoken"]})


def secret_on(page: httpx.Response) -> str:
    found = re.search(r"cm-[A-Za-z0-9_-]{40,}", page.text)
    assert found, page.text[:2_000]
    return found[0]


def tokens_of_mails(folder: Path) -> list[str]:
    """Return the last part of each link: whoever has it comes in."""
    text = "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())
    links = re.findall(r"https?://localhost\S+", text.replace("=\n", "").replace("=3D", "="))
    tokens = {link.rstrip("/.,)\"'>").rpartition("/")[2] for link in links}
    long = sorted(token for token in tokens if re.fullmatch(r"[\w-]{20,}", token))
    assert long
    return long


def wait_until_settled(run: LocalRun) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while time.monotonic() < deadline:
        if run.manage("check_ledger").returncode == 0:
            return
        time.sleep(1)
    raise AssertionError("It is not settled.")


def files_with(run: LocalRun, text: str) -> list[str]:
    """Return the files that hold the text."""
    wanted = text.encode()
    names = {path: str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    return [name for path, name in names.items() if not name.startswith(ON_PURPOSE) and wanted in path.read_bytes()]

"""Who uses a local run, each at an ordinary pace: API clients, a member, an operator, probes, and broken clients.

Every surface is a function that asks once; `Crowd` repeats it until told to stop, and counts what came back.
"""

import asyncio
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.support.local_run import LocalRun

MODEL = "anthropic/claude-sonnet-4.6"
TOO_DEAR_TOKENS = 64_000
ANSWER_SECONDS = 30.0
# All of them share an address, of which thirty sign-ins a minute are taken.
SECONDS_BETWEEN_SIGN_INS = 2.5
API_PATHS = ("/api/v1/credits", "/api/v1/key", "/api/schema/", "/api/hello", "/v1/models", f"/v1/models/{MODEL}")
OPEN_PATHS = ("/", "/reference/", "/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/no/such/page")
CONSOLE_PATHS = (
    "",
    "keys/",
    "keys/new/",
    "usage/",
    "usage/export.csv",
    "billing/",
    "members/",
    "settings/",
    "alerts/",
    "webhooks/",
)
ADMIN_LINK = re.compile(r'href="(/admin/[a-z_]+/[a-z_]+/)"')
KEY_TEXT = re.compile(r"cm-[A-Za-z0-9_-]{20,}")
CSRF_FIELD = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
FORM_ID_FIELD = re.compile(r'name="form_id" value="([^"]+)"')
ERROR_CODE = re.compile(r'"code":"([a-z_]+)"')
UNAVAILABLE = 503
KEY_LINK = re.compile(r"/console/demo/keys/(\d+)/revoke/")
NOT_SENT = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"

GRANT = ("grant_credit", "demo", "1", "--reason", "soak", "--actor", "operator@example.com", "--yes")


class Crowd:
    """All who use the run, and what they got."""

    def __init__(self, run: LocalRun, *, seed: int) -> None:
        self.demo = run.demo
        self.port = run.port
        self.answers: Counter[str] = Counter()  # By surface and status.
        self.faults: list[str] = []
        self.unavailable = 0  # Answers that ask to try again: a machine that is busy with other work gives a few.
        self._manage = run.manage
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._request_ids: list[str] = []
        self._turn_to_sign_in = asyncio.Lock()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    async def use(self, stop: asyncio.Event) -> None:
        """Use everything until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            for surface, pause in self._surfaces():
                group.create_task(self._repeat(surface, pause, stop))

    def _surfaces(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        """What is asked, and the mean of the seconds between two times."""
        return [
            (self._whole, 0.5),
            (self._streamed, 0.5),
            (self._left_early, 2.0),
            (self._refused, 1.0),
            (self._counted, 1.0),
            (self._api, 0.5),
            (self._probes, 0.5),
            (self._open_pages, 1.0),
            (self._member, 5.0),
            (self._operator, 8.0),
            (self._wrong_password, 20.0),
            (self._key_changes, 30.0),
            (self._broken, 1.0),
            (self._top_up, 20.0),
        ]

    async def _repeat(self, surface: Callable[[], Awaitable[None]], pause: float, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS * 3):
                    await surface()
            except Exception as error:
                self.faults.append(f"{surface.__name__}: {error!r}")
            try:
                async with asyncio.timeout(self._random.expovariate(1 / pause)):
                    await stop.wait()
            except TimeoutError:
                continue

    def _client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.demo["CROSSMODEL_BASE_URL"], timeout=ANSWER_SECONDS, **options)

    def _count(self, surface: str, answer: httpx.Response, *expected: int) -> httpx.Response:
        if answer.status_code == UNAVAILABLE:
            found = ERROR_CODE.search(answer.text if answer.is_stream_consumed else "")
            self.answers[f"{surface} {UNAVAILABLE} {found.group(1) if found else ''}".rstrip()] += 1
            self.unavailable += 1
            return answer
        self.answers[f"{surface} {answer.status_code}"] += 1
        if answer.status_code not in expected:
            self.faults.append(f"{surface}: {answer.request.method} {answer.request.url.path} {answer.status_code}")
        return answer

    def _headers(self, **more: str) -> dict[str, str]:
        return {"x-api-key": self.demo["CROSSMODEL_API_KEY"], "anthropic-version": "2023-06-01", **more}

    def _body(self, **fields: Any) -> dict[str, Any]:
        text = f"Question {next(self._numbers)}: what lasts? [[sandbox: tokens={self._random.randint(1, 60)}]]"
        return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": text}], **fields}

    async def _whole(self) -> None:
        async with self._client(headers=self._headers()) as client:
            answer = self._count("whole", await client.post("/v1/messages", json=self._body()), 200)
            self._request_ids = [*self._request_ids[-20:], answer.headers["request-id"]]

    async def _streamed(self) -> None:
        async with self._client(headers=self._headers()) as client:
            answer = await client.post("/v1/messages", json=self._body(stream=True))
            self._count("streamed", answer, 200)
            if answer.status_code == 200 and "message_stop" not in answer.text:
                self.faults.append("streamed: no message_stop")

    async def _left_early(self) -> None:
        body = self._body(stream=True)
        body["messages"][0]["content"] = "Slowly. [[sandbox: tokens=100; pace=50]]"
        async with self._client(headers=self._headers()) as client:
            async with client.stream("POST", "/v1/messages", json=body) as answer:
                if answer.status_code == UNAVAILABLE:
                    await answer.aread()  # Its code is counted.
                else:
                    async for _ in answer.aiter_raw():
                        break
            self._count("left early", answer, 200)

    async def _refused(self) -> None:
        async with self._client() as client:
            for headers, body, status in (
                (self._headers(**{"x-api-key": "cm-nobody"}), self._body(), 401),
                (self._headers(), self._body(model="nobody/nothing"), 404),
                (self._headers(), self._body(max_tokens="many"), 400),
                (self._headers(), self._body(messages=[]), 400),
            ):
                self._count("refused", await client.post("/v1/messages", json=body, headers=headers), status)

    async def _counted(self) -> None:
        body = self._body()
        del body["max_tokens"]
        async with self._client(headers=self._headers()) as client:
            self._count("counted", await client.post("/v1/messages/count_tokens", json=body), 200)

    async def _api(self) -> None:
        async with self._client(headers=self._headers()) as client:
            self._count("api", await client.get(self._random.choice(API_PATHS)), 200)
            if self._request_ids:
                receipt = await client.get("/api/v1/generation", params={"id": self._random.choice(self._request_ids)})
                self._count("receipt", receipt, 200, 404)  # It is settled a moment later.

    async def _probes(self) -> None:
        async with self._client() as client:
            for path in ("/healthz", "/readyz"):
                self._count("probe", await client.get(path), 200)

    async def _open_pages(self) -> None:
        async with self._client() as client:
            self._count("open page", await client.get(self._random.choice(OPEN_PATHS)), 200, 302, 404)
            self._count("open page", await client.get("/console/demo/"), 302)

    async def _member(self) -> None:
        """Sign in, look at every page of the console, sign out."""
        async with self._client() as client:
            await self._sign_in(client, "CONSOLE")
            for path in CONSOLE_PATHS:
                self._count("console", await client.get(f"/console/demo/{path}"), 200)
            if self._request_ids:
                receipt = await client.get(f"/console/demo/usage/{self._request_ids[0].removeprefix('req_')}/")
                self._count("console receipt", receipt, 200, 404)
            await self._post(client, "/accounts/logout/", {}, 302)

    async def _operator(self) -> None:
        """Sign in, and look at the admin's start and three of its lists."""
        async with self._client() as client:
            await self._sign_in(client, "ADMIN")
            start = self._count("admin", await client.get("/admin/"), 200)
            links = sorted(set(ADMIN_LINK.findall(start.text)))
            for link in self._random.sample(links, min(3, len(links))):
                self._count("admin", await client.get(link), 200)

    async def _wrong_password(self) -> None:
        async with self._client() as client:
            fields = {"login": f"nobody{next(self._numbers)}@example.com", "password": "wrong"}
            await self._post_sign_in(client, fields, 200)

    async def _key_changes(self) -> None:
        """Make a key, use it, and revoke it."""
        async with self._client() as client:
            await self._sign_in(client, "CONSOLE")
            form = await client.get("/console/demo/keys/new/")
            found = FORM_ID_FIELD.search(form.text)
            fields = {"name": f"Soak {next(self._numbers)}", "form_id": found.group(1) if found else ""}
            made = await self._post(client, "/console/demo/keys/new/", fields, 200)
            texts = [text for text in KEY_TEXT.findall(made.text) if len(text) > len("cm-") + 20]
            answer = await client.post(
                "/v1/messages", json=self._body(), headers=self._headers(**{"x-api-key": texts[0]})
            )
            self._count("new key", answer, 200)
            page = await client.get("/console/demo/keys/")
            newest = max(int(number) for number in KEY_LINK.findall(page.text))
            await self._post(client, f"/console/demo/keys/{newest}/revoke/", {}, 302)

    async def _broken(self) -> None:
        """Half a head, half a body, no HTTP at all, and a connection that says nothing."""
        whole = json.dumps(self._body()).encode()
        key = f"x-api-key: {self.demo['CROSSMODEL_API_KEY']}\r\n".encode()
        for said in (
            b"POST /v1/messages HT",
            NOT_SENT + key + b"content-length: %d\r\n\r\n" % len(whole) + whole[:20],
            NOT_SENT + key + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"",
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(said)
            await asyncio.sleep(0.05)
            writer.close()
            self.answers["broken -"] += 1

    async def _top_up(self) -> None:
        granted = await asyncio.to_thread(self._manage, *GRANT)
        self.answers[f"top-up exit {granted.returncode}"] += 1
        if granted.returncode:
            self.faults.append(f"top-up: {granted.stderr or granted.stdout}")

    async def _sign_in(self, client: httpx.AsyncClient, who: str) -> None:
        fields = {
            "login": self.demo[f"CROSSMODEL_{who}_EMAIL"],
            "password": self.demo[f"CROSSMODEL_{who}_PASSWORD"],
        }
        await self._post_sign_in(client, fields, 302)

    async def _post_sign_in(self, client: httpx.AsyncClient, fields: dict[str, str], expected: int) -> None:
        """One at a time, and each a while after the last: chance alone would bring more than an address may send."""
        async with self._turn_to_sign_in:
            await self._post(client, "/accounts/login/", fields, expected)
            await asyncio.sleep(SECONDS_BETWEEN_SIGN_INS)

    async def _post(
        self, client: httpx.AsyncClient, path: str, fields: dict[str, str], *expected: int
    ) -> httpx.Response:
        page = await client.get(path)
        token = CSRF_FIELD.search(page.text)
        answer = await client.post(path, data={**fields, "csrfmiddlewaretoken": token.group(1) if token else ""})
        return self._count(f"POST {re.sub('[0-9]+', 'n', path)}", answer, *expected)

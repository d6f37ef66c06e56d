"""What the sandbox does with a request: which protocol, which directives, which reply."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from sandbox import chat_completions, faults, messages_protocol
from sandbox.attempt import Attempt
from sandbox.behaviours import Behaviours
from sandbox.connection import Connection, Request
from sandbox.delivery import Delivery, ResponseBrokenError, response_head
from sandbox.directives import NO_DIRECTIVES, DirectiveError, Directives, inline_directives, without_directives
from sandbox.errors import ErrorAnswer, directed_error, error_answer
from sandbox.journal import COMPLETE, FAILED_PREFIX, Journal
from sandbox.messages_protocol import RequestError
from sandbox.pieces import Piece
from sandbox.prompt_cache import PromptCache
from sandbox.replies import Reply, plan_reply
from sandbox.tokens import chat_prompt, messages_prompt, prompt_tokens
from sandbox.usage import Usage, directed_usage

MAX_BODY_BYTES = 32 * 1024 * 1024
GATEWAY_REQUEST_ID_HEADER = b"x-crossmodel-request-id"
LANGUAGE_MODELS = ("sandbox-large", "sandbox-small")
"""What /v1/models lists. Every other name is served as well."""
GREETING = b"CrossModel's sandbox upstream: not a real provider. docs/sandbox.md says what it can do.\n"
JSON = b"application/json"

PROTOCOL_BY_PATH = {
    b"/v1/messages": "messages",
    b"/v1/messages/count_tokens": "count_tokens",
    b"/v1/chat/completions": "chat_completions",
}


class Prepared(NamedTuple):
    """A request that was understood, with its answer decided but not sent."""

    attempt: Attempt
    chat: bool
    streamed: bool
    model: str
    reply: Reply
    usage: Usage | None
    usage_place: str
    error: ErrorAnswer | None


class RefusedError(Exception):
    """The sandbox refuses the request by itself, as a provider would."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Application:
    """The handler of every connection."""

    def __init__(self, journal: Journal, *, pace_milliseconds: int = 0) -> None:
        self._journal = journal
        self._pace_milliseconds = pace_milliseconds
        self._behaviours = Behaviours()
        self._cache = PromptCache()

    def __call__(self, request: Request, connection: Connection, /) -> "asyncio.Task[None] | None":
        protocol = PROTOCOL_BY_PATH.get(request.path) if request.method == b"POST" else None
        if protocol is None:
            self._answer_aside(request, connection)
            return None
        attempt = Attempt(self._journal)
        try:
            prepared = self._prepare(request, attempt, protocol)
        except RefusedError as refusal:
            self._refuse(attempt, connection, refusal, chat=protocol == "chat_completions")
            return None
        if prepared is None:
            body = orjson.dumps({"input_tokens": attempt.usage.input if attempt.usage else 0})
            self._send_at_once(attempt, connection, 200, body)
            return None
        if prepared.streamed or attempt.directives or self._journal.must_sync:
            task = asyncio.get_running_loop().create_task(self._serve(prepared, request, connection))
            # Not an `except` inside the task: one that is cancelled before its first step would never come there.
            task.add_done_callback(lambda ended: _journal_if_cancelled(ended, attempt, connection))
            return task
        self._send_at_once(attempt, connection, 200, self._body(prepared))
        return None

    def _prepare(self, request: Request, attempt: Attempt, protocol: str) -> Prepared | None:
        """Decide the answer and start the journal's record. None for count_tokens. Raises RefusedError."""
        key = _api_key(request.headers)
        body: Any = None
        directives = NO_DIRECTIVES
        refusal: RefusedError | None = None
        user_text = ""
        try:
            body = _checked_body(request, protocol, key)
            user_text = messages_protocol.last_user_text(body["messages"])
            directives = inline_directives(user_text)
            if protocol != "count_tokens":
                directives = directives.over(self._behaviours.take(body["model"]))
        except RefusedError as refused:
            refusal = refused
        except DirectiveError as error:
            refusal = RefusedError(400, str(error))
        attempt.directives = directives
        readable = isinstance(body, dict)
        streamed = readable and body.get("stream") is True
        attempt.start(
            protocol=protocol,
            model=body["model"] if readable else None,
            streamed=streamed,
            gateway_request_id=_header(request, GATEWAY_REQUEST_ID_HEADER),
            key_last4=key[-4:] if key else None,
        )
        if refusal is not None:
            raise refusal
        try:
            if protocol == "count_tokens":
                attempt.usage = Usage(input=prompt_tokens(messages_prompt(body)), output=0)
                return None
            return self._plan(
                request, body, attempt, without_directives(user_text), chat=protocol == "chat_completions"
            )
        except (RequestError, TypeError, ValueError, KeyError, AttributeError) as error:
            # Only odd shapes deep inside a body come here; a provider answers them with 400 as well.
            raise RefusedError(400, f"sandbox: {type(error).__name__}: {error}") from error

    def _plan(
        self, request: Request, body: dict[str, Any], attempt: Attempt, user_text: str, *, chat: bool
    ) -> Prepared:
        directives = attempt.directives
        streamed = body.get("stream") is True
        model: str = body["model"]
        now = time.monotonic()
        if chat:
            asked = chat_completions.read_request(body, user_text)
            cached = self._cache.use_automatically(chat_prompt(body), scope=model, now=now)
        else:
            asked = messages_protocol.read_request(body, user_text)
            cached = self._cache.use(messages_prompt(body), scope=model, now=now)
        reply = plan_reply(asked, directives, echoed=_echo(request, directives) if directives else None)
        usage: Usage | None = Usage(
            input=cached.uncached if cached.uncached or cached.read or cached.write_5m or cached.write_1h else 1,
            output=reply.output_tokens,
            cache_write_5m=cached.write_5m,
            cache_write_1h=cached.write_1h,
            cache_read=cached.read,
            web_searches=reply.web_searches,
            reasoning=reply.thinking_tokens,
        )
        error = None
        if directives:
            assert usage is not None  # noqa: S101
            usage = directed_usage(usage, directives)
            error = directed_error(directives, streamed=streamed, chat=chat, request_id=attempt.request_id)
        place = chat_completions.usage_place(body, directives) if chat else ""
        return Prepared(attempt, chat, streamed, model, reply, usage, place, error)

    async def _serve(self, prepared: Prepared, request: Request, connection: Connection) -> None:
        attempt = prepared.attempt
        delivery = Delivery(
            connection, attempt, self._journal, chat=prepared.chat, pace_milliseconds=self._pace_milliseconds
        )
        try:
            await delivery.before_headers()
            error = prepared.error
            if error is not None:
                await delivery.send_body(
                    error.status,
                    error.body,
                    FAILED_PREFIX + _error_name(attempt.directives),
                    content_type=error.content_type,
                    retry_after_seconds=error.retry_after_seconds,
                )
            elif prepared.streamed:
                pieces = self._pieces(prepared)
                await delivery.send_stream(pieces, _count_deltas(prepared.reply), chunked=request.chunked_answers)
            else:
                body = self._body(prepared)
                outcome = faults.outcome(attempt.directives, streamed=False, chat=prepared.chat)
                await delivery.send_body(200, body, outcome, content_type=JSON)
        except ResponseBrokenError:
            return

    def _body(self, prepared: Prepared) -> bytes:
        attempt = prepared.attempt
        attempt.usage = prepared.usage
        attempt.text_chars = len(prepared.reply.text)
        if prepared.chat:
            return chat_completions.body(
                prepared.reply,
                prepared.usage,
                attempt.directives,
                model=prepared.model,
                completion_id=f"chatcmpl-sandbox{attempt.n}",
            )
        message_id = f"msg_sandbox{attempt.n}"
        return messages_protocol.body(prepared.reply, prepared.usage, model=prepared.model, message_id=message_id)

    def _pieces(self, prepared: Prepared) -> Iterator[Piece]:
        attempt = prepared.attempt
        if prepared.chat:
            return chat_completions.chunks(
                prepared.reply,
                prepared.usage,
                attempt.directives,
                model=prepared.model,
                completion_id=f"chatcmpl-sandbox{attempt.n}",
                usage_place=prepared.usage_place,
            )
        message_id = f"msg_sandbox{attempt.n}"
        return messages_protocol.events(
            prepared.reply, prepared.usage, attempt.directives, model=prepared.model, message_id=message_id
        )

    def _refuse(self, attempt: Attempt, connection: Connection, refusal: RefusedError, *, chat: bool) -> None:
        answer = error_answer(refusal.status, str(refusal), chat=chat, request_id=attempt.request_id)
        self._send_at_once(attempt, connection, refusal.status, answer.body)

    def _send_at_once(self, attempt: Attempt, connection: Connection, status: int, body: bytes) -> None:
        attempt.status = status
        attempt.bytes_written = len(body)
        attempt.end(COMPLETE if status == 200 else f"{FAILED_PREFIX}{status}")
        connection.write(response_head(status, attempt.request_id, length=len(body)) + body)

    # Everything that is no request to a language model.

    def _answer_aside(self, request: Request, connection: Connection) -> None:
        status, content_type, body = self._aside(request)
        head = response_head(status, "req_sandbox", content_type=content_type, length=len(body))
        connection.write(head if request.method == b"HEAD" else head + body)

    def _aside(self, request: Request) -> tuple[int, bytes, bytes]:
        path = request.path
        if path == b"/sandbox/control" and request.method in (b"GET", b"POST"):
            return self._control(request)
        is_read = request.method in (b"GET", b"HEAD")
        if path == b"/" and is_read:
            return 200, b"text/plain", GREETING
        if path == b"/v1/models" and is_read:
            if _api_key(request.headers) is None:
                return 401, JSON, error_answer(401, "sandbox: no key", chat=False, request_id="req_sandbox").body
            return 200, JSON, _language_models(anthropic_form=b"anthropic-version" in request.headers)
        known = path in PROTOCOL_BY_PATH or path in (b"/", b"/v1/models", b"/sandbox/control")
        status = 405 if known else 404
        message = "sandbox: Method Not Allowed" if known else "sandbox: Not Found"
        return status, JSON, error_answer(status, message, chat=False, request_id="req_sandbox").body

    def _control(self, request: Request) -> tuple[int, bytes, bytes]:
        try:
            body = orjson.loads(request.body) if request.method == b"POST" else {}
            behaviours = self._behaviours.control(body)
        except (DirectiveError, orjson.JSONDecodeError) as error:
            return 400, JSON, error_answer(400, str(error), chat=False, request_id="req_sandbox").body
        return 200, JSON, orjson.dumps({"behaviours": behaviours})


def _journal_if_cancelled(task: "asyncio.Task[None]", attempt: Attempt, connection: Connection) -> None:
    if task.cancelled():
        attempt.abandon(client_left=connection.client_left)


def _checked_body(request: Request, protocol: str, key: str | None) -> dict[str, Any]:
    if not key:
        raise RefusedError(401, "sandbox: x-api-key header is required; any value will do")
    if len(request.body) > MAX_BODY_BYTES:
        raise RefusedError(413, "Request exceeds the maximum size")
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, f"The request body is not valid JSON: {error}") from error
    try:
        if protocol == "chat_completions":
            chat_completions.check_request(body)
        else:
            messages_protocol.check_request(
                body,
                version=_header(request, b"anthropic-version"),
                with_max_tokens=protocol == "messages",
            )
    except RequestError as error:
        raise RefusedError(400, str(error)) from error
    checked: dict[str, Any] = body
    return checked


def _api_key(headers: dict[bytes, bytes]) -> str | None:
    key = headers.get(b"x-api-key")
    if not key:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return None
    return key.decode("latin-1").strip() or None


def _header(request: Request, name: bytes) -> str | None:
    value = request.headers.get(name)
    return None if value is None else value.decode("latin-1")


def _echo(request: Request, directives: Directives) -> str | None:
    """The text that an echo directive asks for: the body as it came, or the headers without the key."""
    if "echo" in directives:
        return request.body.decode()
    if "echo_headers" not in directives:
        return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    for name in ("x-api-key", "authorization"):
        if name in headers:
            headers[name] = f"...{headers[name][-4:]}"
    return orjson.dumps(headers).decode()


def _error_name(directives: Directives) -> str:
    """The directive behind an error, as the journal names it."""
    for name in ("html", "string_error"):
        if name in directives:
            return name
    return f"status={directives.word('status')}" if "status" in directives else "error=mid"


def _count_deltas(reply: Reply) -> int:
    """About how many deltas a reply streams: what `mid` is the middle of."""
    lengths = [len(reply.text) - reply.first_delta_chars, len(reply.thinking or "")]
    lengths.extend(len(call.arguments) for call in reply.tool_calls)
    return sum([-(-length // reply.delta_chars) for length in lengths])


def _language_models(*, anthropic_form: bool) -> bytes:
    if not anthropic_form:
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "sandbox"} for name in LANGUAGE_MODELS]
        return orjson.dumps({"object": "list", "data": entries})
    listed = [
        {
            "type": "model",
            "id": name,
            "display_name": f"Sandbox ({name}), not a real model",
            "created_at": "2026-01-01T00:00:00Z",
        }
        for name in LANGUAGE_MODELS
    ]
    return orjson.dumps(
        {"data": listed, "has_more": False, "first_id": LANGUAGE_MODELS[0], "last_id": LANGUAGE_MODELS[-1]}
    )

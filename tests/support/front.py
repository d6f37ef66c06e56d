"""A load balancer in front of several gateways: one address, connections in turn; who is taken out gets no new ones."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

READ_BYTES = 64 * 1024
START_SECONDS = 10.0


class Front:
    """Passes bytes on and understands none. A gateway that takes no connection is passed over: nothing was sent yet."""

    def __init__(self) -> None:
        self.port = 0
        self._ports: list[int] = []
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._loop.run_forever, name="front", daemon=True).start()
        self.port = self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put_in(self, port: int) -> None:
        self._ports = [*self._ports, port]

    def take_out(self, port: int) -> None:
        self._ports = [other for other in self._ports if other != port]

    def _run(self, work: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> int:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        return 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            gateway = await self._connect()
            if gateway is None:
                return
            to_gateway = asyncio.create_task(_pass_on(reader, gateway[1]))
            await _pass_on(gateway[0], writer)
            to_gateway.cancel()
            gateway[1].close()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ports = self._ports
        for _ in ports:
            self._turn += 1
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
        return None


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(READ_BYTES):
            writer.write(chunk)
            await writer.drain()

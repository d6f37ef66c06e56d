"""Runs the sandbox in this process."""

import asyncio
import os
import signal
import sys
import threading

from sandbox.application import Application
from sandbox.connection import listener
from sandbox.journal import Journal

READY_PREFIX = "sandbox upstream ready at "
BACKLOG = 1024


async def serve(
    *, host: str, port: int, journal: Journal, pace_milliseconds: int = 0, stop_with_stdin: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, or, if asked, until stdin ends: then whoever started us is gone.

    Prints one line when it is ready. Raises OSError when the port is taken.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    factory, open_connections = listener(Application(journal, pace_milliseconds=pace_milliseconds))
    server = await loop.create_server(factory, host, port, backlog=BACKLOG)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if stop_with_stdin:
        threading.Thread(target=_wait_for_stdin_end, args=(loop, stopped), daemon=True).start()
    bound_port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"{READY_PREFIX}http://{host}:{bound_port} (made-up replies, not a real provider)\n")
    sys.stdout.flush()
    await stopped.wait()
    server.close()
    ending = [connection.stop() for connection in list(open_connections)]
    await asyncio.gather(*(task for task in ending if task is not None), return_exceptions=True)
    journal.close()


def _wait_for_stdin_end(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    while os.read(0, 1024):
        pass
    loop.call_soon_threadsafe(stopped.set)

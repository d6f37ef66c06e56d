"""Notices that the terminal of a local run was closed."""

import select
import signal
import sys


class Terminal:
    """The terminal that a local run was started in, if any.

    A shell passes SIGHUP on to what it started. Where `make` itself was started in the terminal (`ssh -t`, tmux),
    nobody does, and only the terminal shows that it is gone.
    """

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        # Under nohup the run is meant to outlive the terminal.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and sys.stdin is not None and sys.stdin.isatty():
            self._poll = select.poll()
            self._poll.register(sys.stdin.fileno(), 0)

    def is_closed(self) -> bool:
        return self._poll is not None and bool(self._poll.poll(0))

"""Why a local run cannot start or go on."""


class LocalRunError(Exception):
    """Its text is one line, written for the person who typed `make run`; empty when the line was printed already."""


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C, closed the terminal or sent SIGTERM."""

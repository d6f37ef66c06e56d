"""The one exception of this package. Its text is one line, written for the person who typed the command."""


class ServerError(Exception):
    """A server of one's own could not be found, made, started or stopped; the text says which, and why."""

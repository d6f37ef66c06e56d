"""How a call to an upstream can fail."""


class UpstreamError(Exception):
    """The upstream did not serve the call."""


class UpstreamUnreachableError(UpstreamError):
    """No connection could be made."""


class NoRoomError(UpstreamError):
    """This process could open no connection: it lacks files, memory or ports. The upstream is not to blame."""


class UpstreamTimeoutError(UpstreamError):
    """It was silent for too long."""


class UpstreamBrokenError(UpstreamError):
    """The connection broke, or what came over it was no HTTP."""


class UpstreamTooLargeError(UpstreamError):
    """The answer passed a bound of ours."""

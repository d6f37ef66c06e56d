"""How long the request path waits for whom. crossmodel_site/settings.py fills it from the environment. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    upstream_connect_seconds: float
    upstream_first_byte_seconds: float  # Over all attempts of a request.
    upstream_idle_seconds: float  # Silence in the middle of a reply.
    request_total_seconds: float
    ping_seconds: float  # Silence towards the client of a stream.
    close_bound_seconds: float  # How long the end of a reply waits for Redis to know its usage.
    spool_retention_seconds: float
    catalog_refresh_seconds: float
    client_stall_seconds: float  # How long a client may read nothing of its stream.
    drain_seconds: float  # How long an upstream is read without a client.

    @property
    def longest_seconds(self) -> float:
        """How long a request can take, with and without its client, and twice that: whatever is older was forgotten."""
        return 2 * (self.upstream_first_byte_seconds + self.request_total_seconds + self.drain_seconds)

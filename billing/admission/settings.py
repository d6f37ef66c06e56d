"""How admission keeps time. crossmodel_site/settings.py fills it from the environment. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    redis_timeout_seconds: float  # How long a gateway waits for an answer of Redis.
    lease_seconds: float  # How long a hold lives without a sign of its gateway.
    heartbeat_seconds: float  # How often a gateway gives one.
    reopen_seconds: float  # How long gateways have to put back what Redis has lost.
    reaper_gap_seconds: float  # After such a gap between two runs the reaper waits for one lease.

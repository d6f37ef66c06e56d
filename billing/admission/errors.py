"""What admission can fail with. A refusal by a limit is an answer, not an error."""


class AdmissionUnavailableError(Exception):
    """Redis did not answer in time, or answered with an error. Nothing may be admitted; what runs goes on."""


class ShardRebuildingError(AdmissionUnavailableError):
    """The shard is being built on a new Redis process; it opens within a few seconds."""

"""What admission can fail with. A refusal by a limit is an answer, not an error."""


class AdmissionUnavailableError(Exception):
    """Redis did not answer in time, or answered with an error. Nothing may be admitted; what runs goes on.

    `may_have_run` tells whether the script may have done its work all the same, its answer being lost.
    """

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class InvalidAmountError(ValueError):
    """An amount that no request of ours can have was to be written; nothing was."""


class ShardRebuildingError(AdmissionUnavailableError):
    """The shard is being built on a new Redis process; it opens within a few seconds."""

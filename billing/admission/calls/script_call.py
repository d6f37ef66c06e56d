"""A script with its keys and arguments, ready to be carried to the server of a shard. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from billing.admission.redis.script import Script

Arg = bytes | str | int
Reply = Sequence[bytes]

# Answered in place of everything else: the shard is to be rebuilt first.
REBUILD = b"REBUILD"


class ScriptCall(NamedTuple):
    """`prefix` is that of the shard whose server runs it."""

    prefix: str
    script: Script
    keys: Sequence[str]
    args: Sequence[Arg]

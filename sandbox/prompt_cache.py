"""The sandbox's prompt cache: which prefixes of prompts were seen lately. It remembers hashes, never text."""

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from sandbox.tokens import PromptBlock

MAX_PREFIXES = 20_000
LIFETIME_SECONDS = {"5m": 300.0, "1h": 3_600.0}
AUTOMATIC_MINIMUM_TOKENS = 1_024
"""OpenAI caches prefixes of at least this length without being asked, and reports steps of AUTOMATIC_STEP_TOKENS."""
AUTOMATIC_STEP_TOKENS = 128
DIGEST_BYTES = 16


class CacheUse(NamedTuple):
    """How a prompt's tokens divide; the four add up to the prompt."""

    uncached: int
    read: int
    write_5m: int
    write_1h: int


class PromptCache:
    """Prefixes by hash, with their expiry on a clock that the caller reads, so that tests need not wait."""

    def __init__(self) -> None:
        self._expiry_by_prefix: OrderedDict[bytes, float] = OrderedDict()

    def use(self, blocks: list[PromptBlock], *, scope: str, now: float) -> CacheUse:
        """Read the longest known prefix and write what the prompt's `cache_control` marks ask to keep.

        Tokens between two marks count for the lifetime of the mark that ends them, as Anthropic bills them.
        """
        marks = [index for index, block in enumerate(blocks) if block.cache_ttl]
        if not marks:
            return CacheUse(sum([block.tokens for block in blocks]), 0, 0, 0)
        digests = _prefix_digests(blocks[: marks[-1] + 1], scope)
        read_until = self._longest_known(digests, now)
        read = sum([block.tokens for block in blocks[: read_until + 1]])
        written = {"5m": 0, "1h": 0}
        start = read_until + 1
        for mark in marks:
            lifetime = blocks[mark].cache_ttl or "5m"
            if mark >= start:
                written[lifetime] += sum([block.tokens for block in blocks[start : mark + 1]])
                start = mark + 1
            self._remember(digests[mark], now + LIFETIME_SECONDS[lifetime])
        return CacheUse(sum([block.tokens for block in blocks[start:]]), read, written["5m"], written["1h"])

    def use_automatically(self, blocks: list[PromptBlock], *, scope: str, now: float) -> CacheUse:
        """OpenAI's way: long prefixes are kept without being asked; only reads are reported."""
        total = sum([block.tokens for block in blocks])
        if total < AUTOMATIC_MINIMUM_TOKENS:
            return CacheUse(total, 0, 0, 0)
        digests = _prefix_digests(blocks, scope)
        read_until = self._longest_known(digests, now)
        read = sum([block.tokens for block in blocks[: read_until + 1]])
        read = read // AUTOMATIC_STEP_TOKENS * AUTOMATIC_STEP_TOKENS if read >= AUTOMATIC_MINIMUM_TOKENS else 0
        self._remember(digests[-1], now + LIFETIME_SECONDS["5m"])
        return CacheUse(total - read, read, 0, 0)

    def clear(self) -> None:
        self._expiry_by_prefix.clear()

    def _longest_known(self, digests: list[bytes], now: float) -> int:
        for index in range(len(digests) - 1, -1, -1):
            expiry = self._expiry_by_prefix.get(digests[index])
            if expiry is not None and expiry > now:
                return index
        return -1

    def _remember(self, digest: bytes, expiry: float) -> None:
        self._expiry_by_prefix[digest] = expiry
        self._expiry_by_prefix.move_to_end(digest)
        if len(self._expiry_by_prefix) > MAX_PREFIXES:
            self._expiry_by_prefix.popitem(last=False)


def _prefix_digests(blocks: list[PromptBlock], scope: str) -> list[bytes]:
    """One digest per block, each over everything up to and including it."""
    running = hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    digests = []
    for block in blocks:
        running.update(block.role.encode() + b"\x00" + orjson.dumps(_without_mark(block.content)) + b"\x00")
        digests.append(running.copy().digest())
    return digests


def _without_mark(content: Any) -> Any:
    """Moving a `cache_control` mark along a conversation must not change the prefix."""
    if isinstance(content, dict) and "cache_control" in content:
        return {name: value for name, value in content.items() if name != "cache_control"}
    return content

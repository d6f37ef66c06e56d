"""How many output tokens a model makes of a byte of text, measured on its own complete replies.

Used only where a provider's own count is missing: a client that left, a stream that broke.
"""

DEFAULT_BYTES_PER_OUTPUT_TOKEN = 4.0
TYPICAL_BYTES_PER_INPUT_TOKEN = 4
LEARNING_WEIGHT = 0.05  # One reply moves the measure by a twentieth of what it differs.
MIN_BYTES_TO_LEARN_FROM = 200  # Shorter replies are mostly overhead.
PLAUSIBLE_BYTES_PER_TOKEN = (0.5, 16.0)


class TokenDensity:
    """Kept per process: it is an estimate, and each process sees enough replies to make its own."""

    def __init__(self) -> None:
        self._bytes_per_token: dict[str, float] = {}

    def learn(self, model_id: str, delivered_bytes: int, output_tokens: int) -> None:
        if delivered_bytes < MIN_BYTES_TO_LEARN_FROM or output_tokens <= 0:
            return
        low, high = PLAUSIBLE_BYTES_PER_TOKEN
        seen = min(max(delivered_bytes / output_tokens, low), high)
        known = self._bytes_per_token.get(model_id, seen)
        self._bytes_per_token[model_id] = known + LEARNING_WEIGHT * (seen - known)

    def tokens(self, model_id: str, delivered_bytes: int) -> int:
        """Return the estimated output tokens of this much text, rounded up."""
        bytes_per_token = self._bytes_per_token.get(model_id, DEFAULT_BYTES_PER_OUTPUT_TOKEN)
        return -int(-delivered_bytes // bytes_per_token)

    def input_tokens(self, body_bytes: int) -> int:
        """Return a typical count for a request body of this size."""
        return -(-body_bytes // TYPICAL_BYTES_PER_INPUT_TOKEN)

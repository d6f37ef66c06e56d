"""How many output tokens a model makes of a byte of text, measured on each organization's own complete replies.

Used only where a provider's own count is missing: a client that left, a stream that broke. What one organization gets
never moves the estimates of another. Replies with thinking teach nothing: what was thought is counted, and may be
hidden or told in short. So does a reply whose measure is not plausible for text.
"""

from collections import OrderedDict

DEFAULT_BYTES_PER_OUTPUT_TOKEN = 4.0
TYPICAL_BYTES_PER_INPUT_TOKEN = 4
TYPICAL_IMAGE_TOKENS = 1_500  # About a million pixels at 750 for a token; many are smaller, few are larger.
LEARNING_WEIGHT = 0.05  # One reply moves the measure by a twentieth of what it differs.
MIN_BYTES_TO_LEARN_FROM = 200  # Shorter replies are mostly overhead.
PLAUSIBLE_BYTES_PER_TOKEN = (1.5, 8.0)
MAX_MEASURES = 20_000  # The one that was used least recently is forgotten.


class TokensPerByteEstimator:
    """Kept per process: it is an estimate, and each process sees enough replies to make its own."""

    def __init__(self) -> None:
        self._bytes_per_token: OrderedDict[tuple[int, str], float] = OrderedDict()

    def learn(self, organization_id: int, model_id: str, delivered_bytes: int, output_tokens: int) -> None:
        """Take a complete reply without thinking into account."""
        if delivered_bytes < MIN_BYTES_TO_LEARN_FROM or output_tokens <= 0:
            return
        low, high = PLAUSIBLE_BYTES_PER_TOKEN
        seen = delivered_bytes / output_tokens
        if not low <= seen <= high:
            return
        measure = (organization_id, model_id)
        known = self._bytes_per_token.get(measure, DEFAULT_BYTES_PER_OUTPUT_TOKEN)
        self._bytes_per_token[measure] = known + LEARNING_WEIGHT * (seen - known)
        self._bytes_per_token.move_to_end(measure)
        if len(self._bytes_per_token) > MAX_MEASURES:
            self._bytes_per_token.popitem(last=False)

    def tokens(self, organization_id: int, model_id: str, delivered_bytes: int) -> int:
        """Return the estimated output tokens of this much text, rounded up."""
        bytes_per_token = self._bytes_per_token.get((organization_id, model_id), DEFAULT_BYTES_PER_OUTPUT_TOKEN)
        return -int(-delivered_bytes // bytes_per_token)

    def input_tokens(self, body_bytes: int, images: int = 0, max_image_tokens: int = TYPICAL_IMAGE_TOKENS) -> int:
        """Return a typical count for a body of this size without its images, and for so many images."""
        return -(-body_bytes // TYPICAL_BYTES_PER_INPUT_TOKEN) + images * min(max_image_tokens, TYPICAL_IMAGE_TOKENS)

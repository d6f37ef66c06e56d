"""What is known of a request before it is admitted. Pure."""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from billing.pricing.cost import IMAGE, PriceTable

if TYPE_CHECKING:
    from billing.catalog.snapshot import CatalogModel
    from gateway.prompt_bounds import PromptBounds


class RequestFacts(NamedTuple):
    """What is known of a request before it is admitted, and does not change."""

    request_id: str
    organization_id: int
    key_id: int
    catalog_model: "CatalogModel"
    price: PriceTable
    factor_ppm: int
    received_at: datetime
    max_tokens: int
    body_bytes: int
    images: int
    is_streamed: bool
    end_user: str
    tag: str
    session: str
    client: str
    web_searches: int
    prompt_components: tuple[str, ...]
    bounds: "PromptBounds"

    @property
    def extras(self) -> "WorstCaseExtras":
        """What the worst case knows of a request besides its tokens."""
        return {
            "factor_ppm": self.factor_ppm,
            "prompt_components": self.prompt_components,
            "images": self.images if self.price.has_price(IMAGE) else 0,
            "web_searches": self.web_searches,
        }


class WorstCaseExtras(TypedDict):
    factor_ppm: int
    prompt_components: tuple[str, ...]
    images: int
    web_searches: int

"""`/api/schema/`: the schema, which is the same for everybody and for as long as this program runs.

Making it takes a third of a second of the processor, and nobody needs a key to ask. drf-spectacular finds its
extensions while it makes one, and fails where two threads do so at once.
"""

from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from api.made_once import MadeOnce


class SchemaView(SpectacularAPIView):
    """Answers with the schema, as YAML or JSON."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer: Any = request.accepted_renderer
        media_type = renderer.media_type if renderer.charset is None else f"{renderer.media_type}; charset=utf-8"
        named = {"content-disposition": f'inline; filename="crossmodel.{renderer.format.rpartition("-")[2]}"'}
        return HttpResponse(render_schema(type(renderer)), content_type=media_type, headers=named)


@MadeOnce
def render_schema(renderer: type[BaseRenderer]) -> bytes:
    """Return the schema as this renderer writes it."""
    rendered = renderer().render(read_schema(), renderer.media_type, {})
    return rendered if isinstance(rendered, bytes) else str(rendered).encode()


@MadeOnce
def read_schema() -> dict[str, Any]:
    """Return the schema. Nobody changes it."""
    generator: Any = SchemaGenerator  # drf-spectacular has no types.
    schema: dict[str, Any] = generator().get_schema(request=None, public=True)
    return schema

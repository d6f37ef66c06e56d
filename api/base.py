"""What every view of `/api/v1/` is: JSON whatever is asked for, an id on every answer, a pace for every key."""

from typing import Any

from rest_framework.exceptions import APIException, UnsupportedMediaType, ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import ApiKey
from api.authentication import ApiKeyAuthentication
from billing.admission.blocking import pace_management
from billing.admission.errors import AdmissionUnavailableError
from billing.request_id import REQUEST_PREFIX, make_request_id

# Calls of `/api/v1/` a minute. They are apart from the limits of model calls.
CALLS_PER_MINUTE_OF_KEY = 600
CALLS_PER_MINUTE_OF_ORGANIZATION = 3_000
MICROS_PER_SECOND = 1_000_000


class TooManyCallsError(APIException):
    status_code = 429
    default_code = "rate_limited_requests"

    def __init__(self, per_minute: int, retry_seconds: int) -> None:
        super().__init__(f"The limit of {per_minute} calls per minute is reached. Try again in {retry_seconds} s.")
        self.retry_seconds = retry_seconds


class JsonAlways(BaseContentNegotiation):
    """JSON is what is read, and whatever a client says that it accepts, it gets JSON, as from `/v1/`."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """Raise UnsupportedMediaType for a body that says that it is something else."""
        said = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == said:
                return parser
        raise UnsupportedMediaType(said, detail="Send the body as application/json, and say so in Content-Type.")

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class KeyedView(APIView):
    """For whoever has a key. Answers carry a request id, as everything of this API does.

    `takes` names the parameters of its GET: another is a fault, so that a typing error is not taken for no filter.
    """

    authentication_classes = [ApiKeyAuthentication]
    content_negotiation_class = JsonAlways
    takes: frozenset[str] = frozenset()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method == "OPTIONS":
            return  # Which methods there are is nobody's secret.
        super().initial(request, *args, **kwargs)
        if isinstance(request.auth, ApiKey):
            keep_pace(request.auth)
        unknown = sorted(set(request.query_params) - self.takes)
        if unknown:
            raise ValidationError({name[:100]: ["There is no such parameter."] for name in unknown[:20]})
        for name, values in request.query_params.lists():
            if any("\x00" in value for value in values):  # No text in Postgres has one.
                raise ValidationError({name: ["A text without zero bytes."]})

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Answer with `allow` alone."""
        return Response(status=204)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.setdefault("request-id", REQUEST_PREFIX + make_request_id().hex)
        answer.headers.setdefault("Cache-Control", "private, no-store")
        return answer

    def key_of(self, request: Request) -> ApiKey:
        key = request.auth
        assert isinstance(key, ApiKey)  # noqa: S101  the only class that authenticates has seen to it
        return key


def keep_pace(key: ApiKey) -> None:
    """Count the call. Raises TooManyCallsError. Without Redis nothing is counted: the threads of pages are a bound."""
    try:
        too_fast = pace_management(
            organization_id=key.organization_id,
            key_id=key.pk,
            key_per_minute=CALLS_PER_MINUTE_OF_KEY,
            organization_per_minute=CALLS_PER_MINUTE_OF_ORGANIZATION,
        )
    except AdmissionUnavailableError:
        return
    if too_fast is not None:
        raise TooManyCallsError(too_fast.per_minute, max(1, -(-too_fast.retry_us // MICROS_PER_SECOND)))

"""`POST /webhooks/<provider>/`: a payment provider tells what became of money.

A 2xx is a promise that what the message says is committed: the provider will not tell it again. So it is sent after the
commit only; whatever goes wrong before is a 5xx, and the provider tries again.
"""

import logging

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.admission.outbox import publish_now_or_later
from billing.payments.events import apply_event
from billing.payments.provider import PaymentProviderError, WebhookRefusedError
from billing.payments.providers import UnknownProviderError, find_provider

MAX_MESSAGE_BYTES = 256 * 1024
RETRY_AFTER_SECONDS = "5"

logger = logging.getLogger(__name__)


@csrf_exempt
@require_POST
def receive(request: HttpRequest, provider: str) -> HttpResponse:
    """Check the signature over the bytes as they came, and apply what the message says."""
    if len(request.body) > MAX_MESSAGE_BYTES:
        return _answer(413, "The message is too large.")
    try:
        events = find_provider(provider).read_webhook(request.body, {k.lower(): v for k, v in request.headers.items()})
        news = [applied for applied in map(apply_event, events) if applied.changed]
    except UnknownProviderError:
        return _answer(404, "There is no such payment provider.")
    except WebhookRefusedError as error:
        logger.warning("A message to /webhooks/%s/ was refused: %s", provider, error)
        return _answer(400, "The message is not signed as it should be, or is no event.")
    except (PaymentProviderError, OperationalError, InterfaceError) as error:
        logger.warning("A message of %s is heard later: %s", provider, error)
        return _answer(503, "Try again.")
    if news:
        publish_now_or_later()
    return _answer(200, "Applied." if news else "Nothing new.")


def _answer(status: int, text: str) -> HttpResponse:
    response = HttpResponse(text + "\n", status=status, content_type="text/plain")
    if status == 503:
        response["retry-after"] = RETRY_AFTER_SECONDS
    return response

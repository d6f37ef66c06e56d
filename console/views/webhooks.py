"""Webhooks: endpoints, their secrets (shown once), their deliveries, tests and replays."""

from datetime import datetime
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.access import Access, Permission
from billing.models import WebhookDelivery, WebhookEndpoint
from billing.webhooks.deliveries import list_deliveries, replay, replay_missed
from billing.webhooks.endpoints import (
    MAX_ENDPOINTS_PER_ORGANIZATION,
    TooManyEndpointsError,
    add_endpoint,
    change_endpoint,
    kept_endpoints,
    remove_endpoint,
    rotate_secret,
    switch_off,
    switch_on,
)
from billing.webhooks.queue import MAX_TESTS_PER_HOUR, TooManyTestsError, queue_test
from console.entrance import console_page
from console.forms.alerts import WebhookForm
from console.one_time_forms import claim_form, is_used, make_form_id, release_form

DELIVERIES_SHOWN = 50


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.MANAGE_ALERTS)
def webhooks(request: HttpRequest, access: Access) -> HttpResponse:
    """List the endpoints; a POST adds one and shows its secret, once."""
    form = WebhookForm(request.POST or None)
    if request.method == "POST":
        if is_used(request):
            messages.warning(request, "This form has added its endpoint already. A secret is shown only once.")
            return redirect("webhooks", slug=access.organization.slug)
        if form.is_valid():
            if not claim_form(request):
                return redirect("webhooks", slug=access.organization.slug)
            try:
                endpoint, secret = add_endpoint(access.organization, created_by=access.user, **form.cleaned_data)
            except TooManyEndpointsError:
                release_form(request)
                form.add_error(None, f"There are {MAX_ENDPOINTS_PER_ORGANIZATION} endpoints already. Remove one first.")
            else:
                return _show_secret(request, endpoint, secret)
    context = {"endpoints": kept_endpoints(access.organization), "form": form, "form_id": make_form_id()}
    return render(request, "console/webhooks.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.MANAGE_ALERTS)
def webhook(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    """Show an endpoint and its latest deliveries; a POST changes where it is and what it gets."""
    endpoint = _endpoint(access, endpoint_id)
    form = WebhookForm(request.POST or None, instance=endpoint)
    if request.method == "POST" and form.is_valid():
        change_endpoint(endpoint, **form.cleaned_data)
        messages.success(request, "Saved.")
        return _back_to(access, endpoint)
    stored = _endpoint(access, endpoint_id)  # A form that was refused has changed the one above.
    before = _delivery_of(stored, request.GET["before"]) if "before" in request.GET else None
    place = (before.created_at, before.pk) if before else None
    found = list(list_deliveries(stored, before=place)[: DELIVERIES_SHOWN + 1])
    context = {
        "endpoint": stored,
        "form": form,
        "deliveries": found[:DELIVERIES_SHOWN],
        "older_than": found[DELIVERIES_SHOWN - 1].pk if len(found) > DELIVERIES_SHOWN else None,
        "is_first_page": before is None,
        "missed": list_deliveries(stored).filter(state=WebhookDelivery.State.FAILED).count(),
        "form_id": make_form_id(),
    }
    return render(request, "console/webhook.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_test(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    endpoint = _endpoint(access, endpoint_id)
    if not endpoint.is_on:
        messages.error(request, "The endpoint is switched off.")
        return _back_to(access, endpoint)
    try:
        delivery = queue_test(endpoint)
    except TooManyTestsError:
        messages.error(request, f"{MAX_TESTS_PER_HOUR} tests were sent within the hour. Try again later.")
        return _back_to(access, endpoint)
    messages.success(request, "The test is on its way. What comes of it shows here within seconds.")
    return redirect("webhook_delivery", slug=access.organization.slug, delivery_id=delivery.pk)


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_rotate(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    """Show a new secret, once; the one before signs too for a day."""
    endpoint = _endpoint(access, endpoint_id)
    if not claim_form(request):
        messages.warning(request, "This form has rotated the secret already. A secret is shown only once.")
        return _back_to(access, endpoint)
    secret = rotate_secret(endpoint)
    return _show_secret(request, endpoint, secret, is_rotated=True)


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_switch(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    """Switch an endpoint on or off, as the form says, so that a form sent twice does not undo itself."""
    endpoint = _endpoint(access, endpoint_id)
    if request.POST.get("to") == "on":
        switch_on(endpoint)
        messages.success(request, "The endpoint is on. What it missed can be replayed below.")
    else:
        switch_off(endpoint, reason=f"By {access.user.email}."[:200])
        messages.success(request, "The endpoint is off. What it misses is kept for 30 days.")
    return _back_to(access, endpoint)


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_remove(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    endpoint = _endpoint(access, endpoint_id)
    remove_endpoint(endpoint)
    messages.success(request, f"{endpoint.url} is removed.")
    return redirect("webhooks", slug=access.organization.slug)


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_replay(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    """Send again all that the endpoint missed."""
    endpoint = _endpoint(access, endpoint_id)
    if not endpoint.is_on:
        messages.error(request, "Switch the endpoint on first.")
    else:
        count = replay_missed(endpoint)
        messages.success(request, f"{count} {'event is' if count == 1 else 'events are'} on the way again.")
    return _back_to(access, endpoint)


@require_safe
@console_page(Permission.MANAGE_ALERTS)
def webhook_delivery(request: HttpRequest, access: Access, delivery_id: UUID) -> HttpResponse:
    delivery = _delivery(access, delivery_id)
    attempts = [{**attempt, "at": datetime.fromisoformat(attempt["at"])} for attempt in delivery.attempts]
    return render(request, "console/webhook_delivery.html", {"delivery": delivery, "attempts": attempts})


@require_POST
@console_page(Permission.MANAGE_ALERTS)
def webhook_delivery_replay(request: HttpRequest, access: Access, delivery_id: UUID) -> HttpResponse:
    delivery = _delivery(access, delivery_id)
    if replay(delivery):
        messages.success(request, "It is on its way again, under the same id.")
    else:
        messages.error(request, "It is on its way already, or the endpoint is off.")
    return redirect("webhook_delivery", slug=access.organization.slug, delivery_id=delivery.pk)


def _endpoint(access: Access, endpoint_id: int) -> WebhookEndpoint:
    endpoint = kept_endpoints(access.organization).filter(pk=endpoint_id).select_related("organization").first()
    if endpoint is None:
        raise Http404
    return endpoint


def _delivery_of(endpoint: WebhookEndpoint, text: str) -> WebhookDelivery:
    try:
        delivery_id = UUID(text)
    except ValueError:
        raise Http404 from None
    return get_object_or_404(WebhookDelivery, endpoint=endpoint, pk=delivery_id)


def _delivery(access: Access, delivery_id: UUID) -> WebhookDelivery:
    found = WebhookDelivery.objects.filter(pk=delivery_id, endpoint__in=kept_endpoints(access.organization))
    delivery = found.select_related("endpoint").first()
    if delivery is None:
        raise Http404
    return delivery


def _show_secret(
    request: HttpRequest, endpoint: WebhookEndpoint, secret: str, *, is_rotated: bool = False
) -> HttpResponse:
    context = {"endpoint": endpoint, "secret": secret, "is_rotated": is_rotated}
    return render(request, "console/webhook_secret.html", context)


def _back_to(access: Access, endpoint: WebhookEndpoint) -> HttpResponse:
    return redirect("webhook", slug=access.organization.slug, endpoint_id=endpoint.pk)

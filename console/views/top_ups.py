"""Topping up: an order, the payment page of a payment provider, and what became of it. Only posted money is shown."""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission
from billing.admission.balances import read_balance
from billing.models import TopUp
from billing.payments.automatic_settings import (
    InvalidAutomaticTopUpError,
    ask_for_card,
    choose,
    read_settings,
)
from billing.payments.orders import InvalidOrderError, OrderConflictError, bounds, open_payment_page, place_order
from billing.payments.provider import CheckoutRequest, PaymentProvider, PaymentProviderError, PaymentRefusedError
from billing.payments.providers import UnknownProviderError, current_provider, find_provider
from console.entrance import console_page
from console.forms.top_ups import AutomaticTopUpForm, TopUpForm

MAX_TOP_UPS_SHOWN = 50
MAX_AUTOMATIC_SHOWN = 10
REFRESH_SECONDS = 3
STRIPE_PAGES = "https://checkout.stripe.com"
PROVIDER_DOWN = (
    "The payment provider cannot be reached right now, and nothing was paid. Try again in a moment: it stays one order."
)


class NoPaymentPageError(Exception):
    """The payment page of an order cannot be opened now; the text says why."""


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.SEE_BILLING)
def top_up_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Show the form and the payments so far; a POST places the order and leads to its payment page."""
    provider = current_provider()
    form = TopUpForm(request.POST or None, bounds=bounds())
    if request.method == "POST" and provider is not None and form.is_valid():
        try:
            top_up = place_order(
                access.organization,
                amount_nanos=form.cleaned_data["amount_nanos"],
                provider=provider.name,
                idempotency_key=form.cleaned_data["key"],
                actor=access.user.email,
            )
        except (InvalidOrderError, OrderConflictError) as error:
            form.add_error("amount_nanos", str(error))
        else:
            try:
                return _lead_to_payment(access, top_up)
            except NoPaymentPageError as error:
                form.add_error(None, str(error))
    status = 200 if request.method != "POST" else 503 if _failed_at_provider(form) else 422
    context = {
        "form": form,
        "bounds": form.bounds,
        "provider": provider,
        "balance": read_balance(access.organization),
        "top_ups": TopUp.objects.filter(organization=access.organization)[:MAX_TOP_UPS_SHOWN],
        "max_shown": MAX_TOP_UPS_SHOWN,
    }
    return _let_forms_lead_away(render(request, "console/top_ups.html", context, status=status))


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.SEE_BILLING)
def top_up(request: HttpRequest, access: Access, top_up_id: int) -> HttpResponse:
    """What is known of one order: where the payment page leads back to. A POST opens the payment page again."""
    found = (
        TopUp.objects.filter(organization=access.organization, pk=top_up_id)
        .select_related("ledger_transaction")
        .first()
    )
    if found is None:
        raise Http404
    error = ""
    if request.method == "POST":
        try:
            return _lead_to_payment(access, found)
        except NoPaymentPageError as reason:
            error = str(reason)
    has_returned = "returned" in request.GET
    # A bank debit takes days: nobody waits for it in front of a page.
    is_waiting = has_returned and found.state == TopUp.State.PENDING and found.processing_since is None
    context = {
        "top_up": found,
        "reversals": found.reversals.select_related("ledger_transaction"),
        "error": error,
        "has_returned": has_returned,
        "refresh_seconds": REFRESH_SECONDS if is_waiting else None,
        "balance": read_balance(access.organization),
    }
    return _let_forms_lead_away(render(request, "console/top_up.html", context, status=503 if error else 200))


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.SEE_BILLING)
def automatic_top_up(request: HttpRequest, access: Access) -> HttpResponse:
    """The settings of automatic top-up: a POST of this form, and no other, changes them."""
    stored = read_settings(access.organization)
    initial = {name: getattr(stored, name) for name in AutomaticTopUpForm.base_fields}
    form = AutomaticTopUpForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            choose(access.organization, form.choice(), actor=access.user.email)
        except InvalidAutomaticTopUpError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Saved. Automatic top-up is on." if form.cleaned_data["is_on"] else "Saved.")
            return redirect("automatic_top_up", slug=access.organization.slug)
    status = 422 if request.method == "POST" else 200
    return _automatic_page(request, access, form, status=status)


@require_POST
@console_page(Permission.SEE_BILLING)
def card_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Lead to the provider's page on which a card is kept."""
    provider = current_provider()
    if provider is None:
        messages.error(request, "Payments online are not set up here.")
        return redirect("automatic_top_up", slug=access.organization.slug)
    stored = ask_for_card(access.organization)
    here = f"{settings.BASE_URL}{reverse('automatic_top_up', kwargs={'slug': access.organization.slug})}"
    name = "Card for automatic top-ups"
    page = CheckoutRequest(stored.card_reference, 0, name, access.user.email, f"{here}?returned", here)
    customer_id = stored.customer_id if stored.provider == provider.name else ""
    try:
        return redirect(provider.open_card_page(page, customer_id=customer_id).url)
    except (PaymentProviderError, PaymentRefusedError):
        messages.error(request, "The payment provider cannot be reached right now. Try again in a moment.")
        return redirect("automatic_top_up", slug=access.organization.slug)


def _automatic_page(request: HttpRequest, access: Access, form: AutomaticTopUpForm, *, status: int) -> HttpResponse:
    organization = access.organization
    stored = read_settings(organization)
    # Who has just kept a first card comes back before the provider has told of it, and would keep another one.
    is_waiting = "returned" in request.GET and not stored.method_id
    context = {
        "form": form,
        "stored": stored,
        "refresh_seconds": REFRESH_SECONDS if is_waiting else None,
        "provider": current_provider(),
        "balance": read_balance(organization),
        "top_ups": TopUp.objects.filter(organization=organization, origin=TopUp.Origin.AUTOMATIC)[:MAX_AUTOMATIC_SHOWN],
    }
    return _let_forms_lead_away(render(request, "console/automatic_top_up.html", context, status=status))


def _lead_to_payment(access: Access, top_up: TopUp) -> HttpResponse:
    """Redirect to the payment page of a pending order, or to what became of it. Raises NoPaymentPageError."""
    here = reverse("top_up", kwargs={"slug": access.organization.slug, "top_up_id": top_up.pk})
    if top_up.state != TopUp.State.PENDING or top_up.processing_since is not None:
        return redirect(here)
    try:
        url = open_payment_page(
            top_up,
            _provider_of(top_up),
            customer_email=top_up.created_by,
            return_url=f"{settings.BASE_URL}{here}?returned",
            cancel_url=f"{settings.BASE_URL}{here}",
        )
    except PaymentProviderError as error:
        raise NoPaymentPageError(PROVIDER_DOWN) from error
    except PaymentRefusedError as error:
        raise NoPaymentPageError(f"The payment provider refused: {error}") from error
    return redirect(url)


def _provider_of(top_up: TopUp) -> PaymentProvider:
    try:
        return find_provider(top_up.provider)
    except UnknownProviderError as error:
        raise PaymentProviderError(str(error)) from error


def _failed_at_provider(form: TopUpForm) -> bool:
    return bool(form.non_field_errors())


def _let_forms_lead_away(response: HttpResponse) -> HttpResponse:
    """Let the forms of this page lead to a payment page, against the policy of all other pages."""
    origins = [STRIPE_PAGES]
    if settings.PAYMENT_SANDBOX_URL:
        parts = urlsplit(settings.PAYMENT_SANDBOX_URL)
        origins.append(f"{parts.scheme}://{parts.netloc}")
    response.form_targets = origins  # type: ignore[attr-defined]  # read by the middleware that writes the policy
    return response

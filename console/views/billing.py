"""Billing: the balance, the credit lots it is made of, codes that add to it, and the statement."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.access import Access, Permission
from billing.admission.balances import read_balance
from billing.credit.redemption import RedemptionError, redeem
from billing.ledger.statements import corrected_requests, find_transaction, list_statement
from billing.models import CreditLot, LedgerTransaction
from billing.usage.paid import records_paid_by
from console.entrance import console_page
from console.forms.billing import RedeemForm
from pages.dates import moment_text
from pages.publishing import publish_or_tell
from pages.templatetags.amounts import column_decimals, usd

MAX_LOTS_SHOWN = 100
MAX_RECORDS_SHOWN = 100
MAX_KEY_NAMES = 1000
KINDS_OF_VIEW = {
    "": (),
    "credit": tuple(kind for kind in LedgerTransaction.Kind.values if kind != LedgerTransaction.Kind.USAGE),
    "usage": (LedgerTransaction.Kind.USAGE.value,),
}


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.SEE_BILLING)
def billing(request: HttpRequest, access: Access) -> HttpResponse:
    """Show the money of the organization; a POST redeems a code."""
    form = RedeemForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _redeem(request, access, form):
        return redirect("billing", slug=access.organization.slug)
    shown = request.GET.get("show", "")
    if shown not in KINDS_OF_VIEW:
        raise Http404
    page = list_statement(access.organization, before=_read_before(request), kinds=KINDS_OF_VIEW[shown])
    lots = list(CreditLot.objects.filter(organization=access.organization, remaining_nanos__gt=0)[:MAX_LOTS_SHOWN])
    context = {
        "balance": read_balance(access.organization),
        "lots": lots,
        "lot_decimals": column_decimals(lot.remaining_nanos for lot in lots),
        "page": page,
        "shown": shown,
        "views": [("", "All"), ("credit", "Credit"), ("usage", "Usage")],
        "is_first_page": "before" not in request.GET,
        "form": form,
    }
    return render(request, "console/billing.html", context, status=422 if request.method == "POST" else 200)


@require_safe
@console_page(Permission.SEE_BILLING)
def transaction(request: HttpRequest, access: Access, transaction_id: int) -> HttpResponse:
    """One ledger transaction: the entries of the organization's own accounts, the lots it moved, the usage it paid."""
    found = find_transaction(access.organization, transaction_id)
    if found is None:
        raise Http404
    amount_nanos = sum(entry.amount_nanos for entry in found.entries.all())
    records = records_paid_by(found, nanos=-amount_nanos, limit=MAX_RECORDS_SHOWN + 1)
    context = {
        "transaction": found,
        "amount_nanos": amount_nanos,
        "records": records[:MAX_RECORDS_SHOWN],
        "names": dict(access.organization.keys.values_list("pk", "name")[:MAX_KEY_NAMES]) if records else {},
        "has_more_records": len(records) > MAX_RECORDS_SHOWN,
        "max_records": MAX_RECORDS_SHOWN,
        "corrected": corrected_requests(found, limit=MAX_RECORDS_SHOWN),
    }
    return render(request, "console/transaction.html", context)


def _redeem(request: HttpRequest, access: Access, form: RedeemForm) -> bool:
    try:
        redeemed = redeem(access.organization, code=form.cleaned_data["code"], actor=access.user.email)
    except RedemptionError as error:
        form.add_error("code", str(error))
        return False
    if not redeemed.posted.is_new:
        at = redeemed.posted.transaction.created_at
        messages.info(request, f"This code was redeemed here before, on {moment_text(at)} UTC.")
        return True
    done = f"{usd(redeemed.code.amount_nanos)} of credit is added."
    publish_or_tell(request, done=done, what_waits=done)
    return True


def _read_before(request: HttpRequest) -> int | None:
    text = request.GET.get("before")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Http404
    return int(text)

"""One search for whatever a person quotes: of a request, a key, a person, an organization, an invoice, a payment.

Each kind is looked up by an index, whatever the text looks like; what an operator may not open is not found.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from allauth.account.models import EmailAddress
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Q
from django.urls import reverse

from accounts.key_format import PUBLIC_CHARS, hash_key, is_well_formed
from accounts.models import ApiKey, Organization, User
from billing.credit.redemption import find_code
from billing.models import (
    Approval,
    Document,
    LedgerTransaction,
    PaymentDispute,
    PaymentMovement,
    RedemptionCode,
    TopUp,
    WebhookDelivery,
)
from billing.payments.providers import provider_names
from billing.request_id import MESSAGE_PREFIX, parse_request_id
from billing.usage.story import tell_story
from pages.templatetags.amounts import cents_usd, usd

MAX_HITS = 20  # Of each kind.
MAX_TEXT_CHARS = 300
# What pages show of a key (cm-AbCd1234…wXyZ), either end of it, or as much of it as somebody copied.
KEY_PART = re.compile(
    rf"(cm-[A-Za-z0-9]{{1,{PUBLIC_CHARS}}})?(?:-[A-Za-z0-9]*)?(?:(?:…|\.{{2,}}|\*+)([A-Za-z0-9]{{4}})?)?"
)
LAST_FOUR = re.compile(r"[A-Za-z0-9]{4}")
NUMBER = re.compile(r"#?([0-9]{1,18})")
DOCUMENT = re.compile(rf"({'|'.join(Document.PREFIXES.values())})[-\s#]*([0-9]{{1,18}})", re.IGNORECASE)
MIN_NAME_CHARS = 3  # Of a person: fewer would mean half of all.
MIN_CODE_CHARS = 4

Person = AbstractBaseUser | AnonymousUser


@dataclass(frozen=True, slots=True)
class Hit:
    kind: str
    title: str
    detail: str
    url: str


def find(person: User, text: str) -> list[Hit]:
    """Return what the text may mean, as far as this operator may see it."""
    text = text.replace("\x00", "").strip()[:MAX_TEXT_CHARS]
    if not text:
        return []
    searches: tuple[tuple[str, Callable[[str], Iterable[Hit]]], ...] = (
        ("billing.view_usagerecord", _requests),
        ("accounts.view_apikey", _keys),
        ("accounts.view_user", _people),
        ("accounts.view_organization", _organizations),
        ("billing.view_document", _documents),
        ("billing.view_topup", _top_ups),
        ("billing.view_ledgertransaction", _transactions),
        ("billing.view_approval", _approvals),
        ("billing.view_redemptioncode", _codes),
        ("billing.view_webhookdelivery", _deliveries),
    )
    if parse_request_id(text) is not None:  # Nobody and nothing else is called so.
        searches = tuple(one for one in searches if one[1] in (_requests, _top_ups))
    return [hit for permission, search in searches if person.has_perm(permission) for hit in search(text)]


def _requests(text: str) -> Iterable[Hit]:
    request_id = parse_request_id(text)
    story = tell_story(request_id) if request_id else None
    if story is not None:
        whose = story.organization.name if story.organization else "of an unknown organization"
        url = reverse("operations_request", args=[story.request_id.hex])
        yield Hit("Request", MESSAGE_PREFIX + story.request_id.hex, whose, url)


def _keys(text: str) -> Iterable[Hit]:
    keys = ApiKey.objects.select_related("organization")
    if is_well_formed(text):
        keys = keys.filter(secret_sha256=hash_key(text))  # A whole key, as it was leaked; it is repeated nowhere.
    elif LAST_FOUR.fullmatch(text):
        keys = keys.filter(last_four=text)
    elif (part := KEY_PART.fullmatch(text)) and any(part.groups()):
        prefix, last_four = part.groups()
        keys = keys.filter(prefix__startswith=prefix) if prefix else keys
        keys = keys.filter(last_four=last_four) if last_four else keys
    else:
        return
    for key in keys.order_by("-id")[:MAX_HITS]:
        state = "revoked" if key.is_revoked else "live"
        detail = f"{key.name}, {state}, of {key.organization.name}"
        yield Hit(
            "Key", f"{key.prefix}…{key.last_four}", detail, reverse("admin:accounts_apikey_change", args=[key.pk])
        )


def _people(text: str) -> Iterable[Hit]:
    if "@" in text:
        by_other_address = EmailAddress.objects.filter(email__iexact=text).values("user_id")
        people = User.objects.filter(Q(email__iexact=text) | Q(pk__in=by_other_address))
    elif len(text) >= MIN_NAME_CHARS:
        people = User.objects.filter(name__icontains=text)
    else:
        return
    for person in people.order_by("id")[:MAX_HITS]:
        memberships = person.memberships.select_related("organization")[:MAX_HITS]
        where = ", ".join(f"{member.get_role_display()} of {member.organization.name}" for member in memberships)
        url = reverse("admin:accounts_user_change", args=[person.pk])
        yield Hit("Person", person.email, where or "a member of no organization", url)


def _organizations(text: str) -> Iterable[Hit]:
    wanted = Q(slug__iexact=text) | Q(name__icontains=text) | Q(former_slugs__slug=text.lower())
    found = Organization.objects.filter(wanted)
    for organization in found.distinct().order_by("name")[:MAX_HITS]:
        url = reverse("admin:accounts_organization_change", args=[organization.pk])
        yield Hit("Organization", organization.name, organization.slug, url)


def _transactions(text: str) -> Iterable[Hit]:
    number = NUMBER.fullmatch(text)
    if number is None:
        return
    for row in LedgerTransaction.objects.select_related("organization").filter(pk=int(number[1])):
        whose = row.organization.name if row.organization else "the system"
        url = reverse("admin:billing_ledgertransaction_change", args=[row.pk])
        yield Hit("Transaction", f"#{row.pk} {row.get_kind_display()}", f"of {whose}", url)


def _documents(text: str) -> Iterable[Hit]:
    """By the number that stands on it, or by that without its letters."""
    named, number = DOCUMENT.fullmatch(text), NUMBER.fullmatch(text)
    if named is not None:
        kinds = [kind for kind, letters in Document.PREFIXES.items() if letters == named[1].upper()]
        rows = Document.objects.filter(number=int(named[2]), kind__in=kinds)
    elif number is not None:
        rows = Document.objects.filter(number=int(number[1]))
    else:
        return
    for row in rows.select_related("organization", "closed_month").order_by("-id")[:MAX_HITS]:
        detail = f"{cents_usd(row.gross_cents)}, issued {row.issued_at:%Y-%m-%d}, of {row.organization.name}"
        url = reverse("admin:billing_document_change", args=[row.pk])
        yield Hit(row.get_kind_display(), row.label, detail, url)


def _top_ups(text: str) -> Iterable[Hit]:
    """By any id that we or the payment provider have for the order, its refunds and its disputes."""
    named = {"provider__in": provider_names()}  # The indexes begin with it.
    wanted = Q(payment_id=text, **named) | Q(charge_id=text, **named) | Q(checkout_id=text, **named)
    moved = PaymentMovement.objects.filter(reference=text, **named).values_list("top_up_id", flat=True)[:MAX_HITS]
    disputed = PaymentDispute.objects.filter(dispute_id=text, **named).values_list("top_up_id", flat=True)[:MAX_HITS]
    wanted |= Q(pk__in={*moved, *disputed} - {None})
    reference, number = parse_request_id(text), NUMBER.fullmatch(text)
    if reference is not None:
        wanted |= Q(reference=reference)
    if number is not None:
        wanted |= Q(pk=int(number[1]))
    for order in TopUp.objects.select_related("organization").filter(wanted).order_by("-id")[:MAX_HITS]:
        detail = f"{usd(order.amount_nanos)}, {order.get_state_display().lower()}, of {order.organization.name}"
        url = reverse("admin:billing_topup_change", args=[order.pk])
        yield Hit("Payment", f"Top-up {order.pk}", detail, url)


def _approvals(text: str) -> Iterable[Hit]:
    number = NUMBER.fullmatch(text)
    if number is None:
        return
    for row in Approval.objects.select_related("organization").filter(pk=int(number[1])):
        detail = f"{row.get_state_display().lower()}{f', of {row.organization.name}' if row.organization else ''}"
        yield Hit("Approval", str(row), detail, reverse("admin:billing_approval_change", args=[row.pk]))


def _codes(text: str) -> Iterable[Hit]:
    """By the whole code, as somebody typed it, or by the beginning that its page shows."""
    typed, begins = find_code(text), text.rstrip("….").upper()
    if typed is not None:
        rows = [typed]
    elif len(begins) >= MIN_CODE_CHARS:
        rows = list(RedemptionCode.objects.filter(prefix=begins).order_by("-id")[:MAX_HITS])
    else:
        return
    for row in rows:
        detail = f"used {row.redemption_count} times of {row.max_redemptions}"
        yield Hit("Redemption code", str(row), detail, reverse("admin:billing_redemptioncode_change", args=[row.pk]))


def _deliveries(text: str) -> Iterable[Hit]:
    rows = (
        WebhookDelivery.objects.select_related("endpoint__organization").filter(event_id=text).order_by("-created_at")
    )
    for row in rows[:MAX_HITS]:
        detail = f"{row.get_state_display().lower()}, of {row.endpoint.organization.name}"
        url = reverse("admin:billing_webhookdelivery_change", args=[row.pk])
        yield Hit("Webhook delivery", f"{row.event_type} {row.event_id}", detail, url)

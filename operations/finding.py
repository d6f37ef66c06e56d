"""One search for whatever a person quotes: a request, a key, a person, an organization, a transaction, a payment.

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
from billing.models import LedgerTransaction, TopUp
from billing.request_id import MESSAGE_PREFIX, parse_request_id
from billing.usage.story import tell_story

MAX_HITS = 20  # Of each kind.
MAX_TEXT_CHARS = 300
KEY_PREFIX = re.compile(rf"cm-[A-Za-z0-9]{{1,{PUBLIC_CHARS}}}")
LAST_FOUR = re.compile(r"[A-Za-z0-9]{4}")
NUMBER = re.compile(r"#?([0-9]{1,18})")

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
        ("billing.view_ledgertransaction", _transactions),
        ("billing.view_topup", _top_ups),
    )
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
    elif KEY_PREFIX.fullmatch(text):
        keys = keys.filter(prefix__startswith=text)
    elif LAST_FOUR.fullmatch(text):
        keys = keys.filter(last_four=text)
    else:
        return
    for key in keys.order_by("-id")[:MAX_HITS]:
        state = "revoked" if key.is_revoked else "live"
        detail = f"{key.name}, {state}, of {key.organization.name}"
        yield Hit(
            "Key", f"{key.prefix}…{key.last_four}", detail, reverse("admin:accounts_apikey_change", args=[key.pk])
        )


def _people(text: str) -> Iterable[Hit]:
    if "@" not in text:
        return
    by_other_address = EmailAddress.objects.filter(email__iexact=text).values("user_id")
    people = User.objects.filter(Q(email__iexact=text) | Q(pk__in=by_other_address))
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


def _top_ups(text: str) -> Iterable[Hit]:
    wanted = Q(payment_id=text) | Q(charge_id=text) | Q(checkout_id=text)
    reference = parse_request_id(text)
    if reference is not None:
        wanted |= Q(reference=reference)
    for order in TopUp.objects.select_related("organization").filter(wanted).order_by("-id")[:MAX_HITS]:
        detail = f"{order.get_state_display().lower()}, of {order.organization.name}"
        url = reverse("admin:accounts_organization_change", args=[order.organization_id])
        yield Hit("Payment", f"Top-up {order.pk}", detail, url)

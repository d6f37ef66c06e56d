"""Who hears of an alert by mail: owners and the billing role, the owner of the key, as the organization chose."""

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from accounts.models import Member, Role
from billing.models import Alert, AlertSettings

MEMBER_SUBJECT = re.compile(r"member:(\d{1,18}):")


@dataclass(frozen=True, slots=True)
class Readers:
    """The people of one organization, by id, and what it chose."""

    by_role: dict[str, list[int]]
    roles: frozenset[str]
    mails_key_makers: bool
    muted_kinds: frozenset[str]

    def of(self, alert: Alert) -> list[int]:
        """Return the ids of those who hear of this alert, each once. Whoever has left hears nothing.

        A member hears of a budget of their own as the owner of a key does of the key's.
        """
        if alert.kind in self.muted_kinds:
            return []
        people = [user for role in sorted(self.roles) for user in self.by_role.get(role, [])]
        owner = alert.key.owner_id if alert.key else None
        if found := MEMBER_SUBJECT.match(alert.subject):
            owner = int(found[1])
        if owner is not None and self.mails_key_makers and any(owner in users for users in self.by_role.values()):
            people.append(owner)
        return list(dict.fromkeys(people))


def read_readers(organization_ids: Collection[int]) -> dict[int, Readers]:
    """Return the readers of each of these organizations, with two statements for all."""
    chosen = AlertSettings.objects.in_bulk(list(organization_ids))
    people: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    members = Member.objects.filter(organization__in=organization_ids, user__is_active=True).order_by("pk")
    for organization_id, role, user_id in members.values_list("organization_id", "role", "user_id"):
        people[organization_id][role].append(user_id)
    return {
        organization_id: _readers(people[organization_id], chosen.get(organization_id) or AlertSettings())
        for organization_id in organization_ids
    }


def _readers(by_role: dict[str, list[int]], chosen: AlertSettings) -> Readers:
    wanted = {Role.OWNER: chosen.mails_owners, Role.ADMIN: chosen.mails_admins, Role.BILLING: chosen.mails_billing}
    return Readers(
        by_role=by_role,
        roles=frozenset(role.value for role, is_wanted in wanted.items() if is_wanted),
        mails_key_makers=chosen.mails_key_makers,
        muted_kinds=frozenset(chosen.muted_kinds),
    )

"""Calls that manage an organization: by a management key, with its role, each method behind a permission."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import QuerySet
from rest_framework.exceptions import MethodNotAllowed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from accounts.access import Permission, may
from accounts.models import ApiKey, Organization, Role, User
from api.authentication import ApiKeyAuthentication, ApiKeyScheme
from api.base import KeyedView
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.outbox import publish_pending_changes

IN_FORCE = "x-crossmodel-in-force"
FIRST_ERROR = 400  # Of the statuses.


class ManagementKeyAuthentication(ApiKeyAuthentication):
    """Lets management keys in; every other key is refused, however much it may spend."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey]:
        _, key = super().authenticate(request)
        if not key.is_management:
            raise PermissionDenied("This needs a management key.", code="management_key_required")
        return None, key


class ManagementKeyScheme(ApiKeyScheme):  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    target_class = ManagementKeyAuthentication
    name = "managementKey"


@dataclass(frozen=True)
class Acting:
    """A management key at work. What it makes is put down to the member whose key it is, by whose budget it is."""

    key: ApiKey
    organization: Organization
    role: Role

    def may(self, permission: Permission) -> bool:
        return may(self.role, permission)

    def require(self, permission: Permission) -> None:
        """Raise PermissionDenied when the role of the key lacks the permission."""
        if not self.may(permission):
            raise PermissionDenied(
                f"This key acts as {self.role.value}, which lacks the permission {permission.value}.",
                code="permission_required",
            )

    @cached_property
    def person(self) -> User | None:
        """The member whose key it is, as long as they are one: who has left does nothing here any more."""
        member = self.organization.members.select_related("user").filter(user=self.key.owner_id).first()
        return member.user if member else None

    @property
    def name(self) -> str:
        """What a change is written down under, where that is a text."""
        return self.person.email if self.person else f"management key {self.key.prefix}"

    def keys(self) -> QuerySet[ApiKey]:
        """Return the keys that it may see and change: all that are no management keys, or those of its person."""
        keys = self.organization.keys.filter(is_management=False)
        if self.may(Permission.MANAGE_ALL_KEYS):
            return keys
        return keys.filter(owner=self.person) if self.person else keys.none()


class ManagementView(KeyedView):
    """`needs` names the permission of each method; docs/roles.md holds the same table, and a test compares them."""

    authentication_classes = [ManagementKeyAuthentication]
    needs: dict[str, Permission] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "OPTIONS":
            return
        permission = self.needs.get("GET" if request.method == "HEAD" else request.method or "")
        if permission is None:
            raise MethodNotAllowed(request.method or "")
        self.acting(request).require(permission)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Say of a change whether every gateway knows it. It is committed by now."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        if request.method not in SAFE_METHODS and answer.status_code < FIRST_ERROR:
            answer.headers[IN_FORCE] = "true" if bring_into_force() else "false"
        return answer

    @property
    def allowed_methods(self) -> list[str]:
        return sorted({*self.needs, "OPTIONS", *(("HEAD",) if "GET" in self.needs else ())})

    def acting(self, request: Request) -> Acting:
        key = self.key_of(request)
        return Acting(key, key.organization, key.acting_role)


def bring_into_force() -> bool:
    """Let every gateway know of what was changed; False when Redis must be told later, which the worker does."""
    try:
        publish_pending_changes()
    except (AdmissionUnavailableError, OperationalError, InterfaceError):
        return False
    return True

"""Who you are: people, organizations, members with roles, invitations, API keys, changes for Redis, the audit."""

from accounts.models.audit import AuditEntry
from accounts.models.billing_details import BillingDetails
from accounts.models.change import AdmissionChange
from accounts.models.invitation import Invitation
from accounts.models.key import ApiKey, TemporarySecret
from accounts.models.limits import Limits
from accounts.models.organization import FormerSlug, Member, Organization, Role
from accounts.models.user import User

__all__ = [
    "AdmissionChange",
    "ApiKey",
    "AuditEntry",
    "BillingDetails",
    "FormerSlug",
    "Invitation",
    "Limits",
    "Member",
    "Organization",
    "Role",
    "TemporarySecret",
    "User",
]

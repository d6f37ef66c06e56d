"""Who you are: people, organizations, members with roles, invitations, API keys, and what Redis must hear of."""

from accounts.models.change import AdmissionChange
from accounts.models.invitation import Invitation
from accounts.models.key import ApiKey
from accounts.models.limits import Limits
from accounts.models.organization import Member, Organization, Role
from accounts.models.user import User

__all__ = ["AdmissionChange", "ApiKey", "Invitation", "Limits", "Member", "Organization", "Role", "User"]

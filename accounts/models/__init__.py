"""Who you are: people, organizations, members with roles, API keys, and the changes that Redis must hear of."""

from accounts.models.change import AdmissionChange
from accounts.models.key import ApiKey
from accounts.models.limits import Limits
from accounts.models.organization import Member, Organization, Role
from accounts.models.user import User

__all__ = ["AdmissionChange", "ApiKey", "Limits", "Member", "Organization", "Role", "User"]

"""What an organization can spend right now. The one source for pages and API: the state that admission enforces."""

from dataclasses import dataclass

from accounts.models import Organization
from billing.admission import blocking, outbox
from billing.admission.calls.state import AdmissionState
from billing.admission.errors import AdmissionUnavailableError
from billing.ledger.statements import posted_nanos


@dataclass(frozen=True, slots=True)
class BalanceView:
    """`posted_nanos` is what the ledger says; `state` is None while Redis cannot say what is held and unsettled."""

    posted_nanos: int
    credit_limit_nanos: int
    state: AdmissionState | None

    @property
    def available_nanos(self) -> int | None:
        return self.state.available_nanos if self.state else None


def read_admission_state(organization: Organization) -> AdmissionState:
    """Return what admission enforces, loading the organization into Redis first when it is not there yet.

    Raises AdmissionUnavailableError when Redis does not answer.
    """
    state = blocking.read_admission_state(organization.pk)
    if state is None:
        outbox.publish_organizations([organization.pk])
        state = blocking.read_admission_state(organization.pk)
    if state is None:
        raise AdmissionUnavailableError(f"Redis does not keep organization {organization.pk}.")
    return state


def read_balance(organization: Organization) -> BalanceView:
    """Return the balance as it stands, without what is held and unsettled when Redis does not answer."""
    try:
        state = read_admission_state(organization)
    except AdmissionUnavailableError:
        state = None
    return BalanceView(
        posted_nanos=posted_nanos(organization),
        credit_limit_nanos=organization.credit_limit_nanos,
        state=state,
    )

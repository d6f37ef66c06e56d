"""What an organization can spend right now. The one source for pages and API: the figures that admission enforces."""

from dataclasses import dataclass

from accounts.models import Organization
from billing.admission import feed, worker
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.worker import AdmissionFigures
from billing.statements import posted_nanos


@dataclass(frozen=True, slots=True)
class BalanceView:
    """`posted_nanos` is what the ledger says; `figures` is None while Redis cannot say what is held and unsettled."""

    posted_nanos: int
    credit_limit_nanos: int
    figures: AdmissionFigures | None

    @property
    def available_nanos(self) -> int | None:
        return self.figures.available_nanos if self.figures else None


def read_figures(organization: Organization) -> AdmissionFigures:
    """Return what admission enforces, loading the organization into Redis first when it is not there yet.

    Raises AdmissionUnavailableError when Redis does not answer.
    """
    figures = worker.read_figures(organization.pk)
    if figures is None:
        feed.publish_organizations([organization.pk])
        figures = worker.read_figures(organization.pk)
    if figures is None:
        raise AdmissionUnavailableError(f"Redis does not keep organization {organization.pk}.")
    return figures


def read_balance(organization: Organization) -> BalanceView:
    """Return the balance as it stands, without live figures when Redis does not answer."""
    try:
        figures = read_figures(organization)
    except AdmissionUnavailableError:
        figures = None
    return BalanceView(
        posted_nanos=posted_nanos(organization),
        credit_limit_nanos=organization.credit_limit_nanos,
        figures=figures,
    )

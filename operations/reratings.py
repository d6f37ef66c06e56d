"""Re-ratings as they are run: beside the worker's own work, since a long window takes long."""

import logging

from kombu.exceptions import OperationalError

from billing.approvals.rerating_work import post_decided_reratings, post_rerating
from billing.models import Approval
from operations.jobs import BY_NAME, job, run_now

logger = logging.getLogger(__name__)


def post_decided() -> None:
    """Post what is decided. Twice at once posts nothing twice."""
    with job("reratings"):
        post_decided_reratings()


def post_at_once(approval: Approval) -> None:
    """Post one here, as a worker would. Raises ReratingError."""
    with job("reratings"):
        post_rerating(approval)


def call_for_posting(approval: Approval) -> None:
    """Have a worker post a re-rating at once. Without a broker the schedule does it within a minute."""
    if approval.kind != Approval.Kind.RERATING or approval.state != Approval.State.APPLIED:
        return
    try:
        run_now(BY_NAME["reratings"])
    except OperationalError as error:
        logger.warning("%s is posted by the schedule: %s", approval, error)

"""What commands that move money share: an operator's account, what would be posted, a question, a second person."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Organization, User
from billing.approvals.book import REFUSALS, ApprovalError, Asked, ask, preview
from billing.models import Approval
from billing.payments.provider import PaymentProviderError
from operations.management.arguments import MAX_ACTOR_CHARS, find_operator, shell_user, text_of

YES = "yes"


def add_asking(parser: ArgumentParser) -> None:
    """Add `--actor`, `--yes` and `--dry-run`."""
    parser.add_argument(
        "--actor",
        type=text_of(MAX_ACTOR_CHARS),
        default="",
        metavar="EMAIL",
        help="Your account, which must be an operator's. It is recorded with the user of the shell.",
    )
    parser.add_argument("--yes", action="store_true", help="Do not ask. Needed where nobody can answer.")
    parser.add_argument("--dry-run", action="store_true", help="Say what would be posted, and post nothing.")


def operator_account(options: Mapping[str, Any]) -> User:
    """Return the account of `--actor`. Raises CommandError when it names nobody, or no active operator."""
    if not options["actor"].strip():
        raise CommandError("--actor EMAIL is missing: whoever moves money names their account.")
    return find_operator(options["actor"].strip())


def confirm(command: BaseCommand, options: Mapping[str, Any], lines: Sequence[str]) -> bool:
    """Say what would be done, and ask. False after a dry run or a no. Raises CommandError where nobody can answer."""
    if not options["yes"] or options["dry_run"]:
        for line in lines:
            command.stdout.write(line)
    if options["dry_run"]:
        command.stdout.write("Dry run: nothing was changed.")
        return False
    if options["yes"]:
        return True
    if not sys.stdin.isatty():
        raise CommandError("--yes is missing, and nobody can be asked here. Nothing was changed.")
    if input(f'Type "{YES}" to go on: ').strip().lower() == YES:
        return True
    command.stdout.write("Nothing was changed.")
    return False


def ask_as_operator(
    command: BaseCommand,
    options: Mapping[str, Any],
    kind: Approval.Kind,
    *,
    organization: Organization | None,
    terms: Mapping[str, Any],
    amount_nanos: int,
    idempotency_key: str,
    unchanged: str,
) -> Asked | None:
    """Show the postings, ask, and apply or let wait. None when nothing was to be done. Raises CommandError.

    `unchanged` ends the sentence of a refusal: "Nothing was granted."
    """
    operator = operator_account(options)

    def guarded(do: Callable[[], Any]) -> Any:
        try:
            return do()
        except (*REFUSALS, ApprovalError) as error:
            raise CommandError(f"{error} {unchanged}") from None
        except PaymentProviderError as error:
            raise CommandError(f"{error} It stands, and is asked for again.") from None

    wanted = {
        "organization": organization,
        "terms": dict(terms),
        "amount_nanos": amount_nanos,
        "reason": options["reason"],
        "asked_by": operator,
        "idempotency_key": idempotency_key,
        "shell_user": shell_user(),
    }
    is_known = Approval.objects.filter(idempotency_key=idempotency_key).exists()
    lines = [] if is_known else guarded(lambda: preview(Approval(kind=kind, **wanted)))
    if not confirm(
        command, options, [f"For {organization or 'all whom it concerns'}:", *(f"  {line}" for line in lines)]
    ):
        return None
    asked: Asked = guarded(lambda: ask(kind, **wanted))
    if asked.waits_because:
        command.stdout.write(f"It waits for a second person, as approval {asked.approval.pk}. {asked.waits_because}")
        return None
    return asked

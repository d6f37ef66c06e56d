from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.billing_details import change_billing_details, read_billing_details
from tests.billing.ledger_factory import make_organization

pytestmark = pytest.mark.django_db


def test_a_check_is_kept_with_its_evidence_until_the_tax_id_changes() -> None:
    organization = make_organization()
    change_billing_details(organization, fields={"country": "FR", "tax_id": "FR40303265045"})
    output = StringIO()
    arguments = ["check_tax_id", organization.slug, "FR40303265045", "valid", "--evidence", "VIES, consultation 7"]
    call_command(*arguments, stdout=output)
    assert output.getvalue() == f"{organization.slug}: tax id FR40303265045 is valid\n"
    details = read_billing_details(organization)
    assert (details.tax_id_state, details.tax_id_checked_at is None) == ("valid", False)
    assert details.tax_id_evidence.startswith("VIES, consultation 7, by shell:")
    change_billing_details(organization, fields={"city": "Paris"})
    assert read_billing_details(organization).tax_id_state == "valid"
    change_billing_details(organization, fields={"tax_id": "FR83404833048"})
    details = read_billing_details(organization)
    assert (details.tax_id_state, details.tax_id_checked_at, details.tax_id_evidence) == ("not_checked", None, "")
    with pytest.raises(CommandError, match="does not have the tax id"):
        call_command(*arguments)


def test_a_check_of_nobody_is_refused() -> None:
    organization = make_organization()
    with pytest.raises(CommandError, match="does not have"):
        call_command("check_tax_id", organization.slug, "X", "invalid", "--evidence", "VIES")
    with pytest.raises(CommandError, match="no organization"):
        call_command("check_tax_id", "nobody", "X", "invalid", "--evidence", "VIES")

"""What becomes of each table when an organization, or a person, is erased. A test finds a table that is not here."""

from enum import StrEnum


class Fate(StrEnum):
    """ERASED: its rows are deleted. EMPTIED: its rows stay, without what a person wrote. KEPT: numbers and ids alone,
    or what must be kept; `WHY_KEPT` says which.
    """

    ERASED = "erased"
    EMPTIED = "emptied"
    KEPT = "kept"


# Every table with an organization's column, and the organization's own.
OF_ORGANIZATION: dict[str, Fate] = {
    "accounts_organization": Fate.EMPTIED,
    "accounts_apikey": Fate.EMPTIED,
    "accounts_member": Fate.ERASED,
    "accounts_formerslug": Fate.ERASED,
    "accounts_invitation": Fate.ERASED,
    "accounts_billingdetails": Fate.ERASED,
    "accounts_auditentry": Fate.KEPT,
    "accounts_admissionchange": Fate.KEPT,
    "api_managementanswer": Fate.ERASED,
    "billing_alert": Fate.ERASED,
    "billing_alertsettings": Fate.ERASED,
    "billing_approval": Fate.KEPT,
    "billing_attributedday": Fate.ERASED,
    "billing_automatictopup": Fate.ERASED,
    "billing_budgetday": Fate.KEPT,
    "billing_budgetoverride": Fate.ERASED,
    "billing_closedmonth": Fate.KEPT,
    "billing_creditlot": Fate.KEPT,
    "billing_dataretention": Fate.ERASED,
    "billing_deletionrequest": Fate.ERASED,
    "billing_document": Fate.KEPT,
    "billing_failedday": Fate.KEPT,
    "billing_failedrequest": Fate.KEPT,
    "billing_ledgeraccount": Fate.KEPT,
    "billing_ledgertransaction": Fate.KEPT,
    "billing_organizationbalance": Fate.KEPT,
    "billing_organizationpricefactor": Fate.KEPT,
    "billing_outgoingmail": Fate.ERASED,
    "billing_reconciliationbreak": Fate.KEPT,
    "billing_recurringcredit": Fate.ERASED,
    "billing_redemption": Fate.KEPT,
    "billing_redemptionattempts": Fate.ERASED,
    "billing_refusedday": Fate.KEPT,
    "billing_refusedrequest": Fate.ERASED,
    "billing_requestdetail": Fate.ERASED,
    "billing_reratedrequest": Fate.KEPT,
    "billing_spenderbudget": Fate.ERASED,
    "billing_spenderday": Fate.ERASED,
    "billing_topup": Fate.KEPT,
    "billing_usagecorrection": Fate.KEPT,
    "billing_usageday": Fate.KEPT,
    "billing_usagehour": Fate.KEPT,
    "billing_usagequarantine": Fate.KEPT,
    "billing_usagerecord": Fate.KEPT,
    "billing_webhookendpoint": Fate.ERASED,
}
WHY_KEPT = {
    "accounts_auditentry": "who did what: by numbers, with old names of the organization and its keys",
    "billing_document": "invoices, as they were issued: tax law asks for them for years",
    "billing_usagequarantine": "events that nobody could settle, until somebody has",
}
# Texts that name who did something, in every table that has one of these columns.
ACTOR_COLUMNS = (
    "actor", "approved_by", "changed_by", "created_by", "ended_by", "made_by", "redeemed_by", "resolved_by",
    "revoked_by",
)  # fmt: skip
# What is never given away, also not to its owner: hashes and sealed secrets.
NEVER_EXPORTED = frozenset(
    {
        "secret_sha256",
        "sealed_secret",
        "sealed_previous_secret",
        "token_sha256",
        "sealed_answer",
        "raw_event",
        "password",
    }
)

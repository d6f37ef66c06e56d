"""What it costs and where the money is. Rows of the ledger and of usage are never edited."""

from billing.models.alert import Alert, AlertSettings
from billing.models.approval import Approval
from billing.models.automatic_top_up import AutomaticTopUp, PaymentRefund, RecurringCredit
from billing.models.budget import BudgetOverride, SpenderBudget, SpenderDay
from billing.models.catalog import CatalogVersion, LanguageModel, LanguageModelAlias, Route, Upstream
from billing.models.correction import UsageCorrection
from billing.models.credit import CreditLot, CreditLotEntry
from billing.models.document import ClosedMonth, Document, DocumentLine, DocumentSeries
from billing.models.ledger import LedgerAccount, LedgerEntry, LedgerSealKey, LedgerTransaction, OrganizationBalance
from billing.models.outgoing_mail import OutgoingMail
from billing.models.payment import PaymentBreak, PaymentDispute, PaymentMovement, PaymentReversal, TopUp
from billing.models.price import OrganizationPriceFactor, PriceComponent, PriceVersion
from billing.models.privacy import DataRetention, DeletionRequest
from billing.models.proof import ProvenMonth
from billing.models.reconciliation import (
    ProviderReport,
    ProviderReportLine,
    ReconciliationBreak,
    ReconciliationRun,
    ReconciliationSource,
)
from billing.models.redemption import Redemption, RedemptionAttempts, RedemptionCode
from billing.models.refusal import RefusedRequest
from billing.models.rerating import ReratedRequest, Rerating
from billing.models.roll_up import AttributedDay, RefusedDay, UsageDay
from billing.models.usage import (
    BudgetDay,
    FailedDay,
    FailedRequest,
    RequestDetail,
    UsageHour,
    UsageQuarantine,
    UsageRecord,
)
from billing.models.webhook import WebhookDelivery, WebhookEndpoint

__all__ = [
    "Alert",
    "AlertSettings",
    "Approval",
    "AttributedDay",
    "AutomaticTopUp",
    "BudgetDay",
    "BudgetOverride",
    "CatalogVersion",
    "ClosedMonth",
    "CreditLot",
    "CreditLotEntry",
    "DataRetention",
    "DeletionRequest",
    "Document",
    "DocumentLine",
    "DocumentSeries",
    "FailedDay",
    "FailedRequest",
    "LanguageModel",
    "LanguageModelAlias",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerSealKey",
    "LedgerTransaction",
    "OrganizationBalance",
    "OrganizationPriceFactor",
    "OutgoingMail",
    "PaymentBreak",
    "PaymentDispute",
    "PaymentMovement",
    "PaymentRefund",
    "PaymentReversal",
    "PriceComponent",
    "PriceVersion",
    "ProvenMonth",
    "ProviderReport",
    "ProviderReportLine",
    "ReconciliationBreak",
    "ReconciliationRun",
    "ReconciliationSource",
    "RecurringCredit",
    "Redemption",
    "RedemptionAttempts",
    "RedemptionCode",
    "RefusedDay",
    "RefusedRequest",
    "RequestDetail",
    "ReratedRequest",
    "Rerating",
    "Route",
    "SpenderBudget",
    "SpenderDay",
    "TopUp",
    "Upstream",
    "UsageCorrection",
    "UsageDay",
    "UsageHour",
    "UsageQuarantine",
    "UsageRecord",
    "WebhookDelivery",
    "WebhookEndpoint",
]

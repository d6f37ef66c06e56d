"""What it costs and where the money is. Rows of the ledger and of usage are never edited."""

from billing.models.catalog import CatalogVersion, LanguageModel, LanguageModelAlias, Route, Upstream
from billing.models.correction import UsageCorrection
from billing.models.credit import CreditLot, CreditLotEntry
from billing.models.ledger import LedgerAccount, LedgerEntry, LedgerTransaction, OrganizationBalance
from billing.models.price import OrganizationPriceFactor, PriceComponent, PriceVersion
from billing.models.redemption import Redemption, RedemptionAttempts, RedemptionCode
from billing.models.rerating import ReratedRequest, Rerating
from billing.models.usage import (
    BudgetDay,
    FailedDay,
    FailedRequest,
    RequestDetail,
    UsageHour,
    UsageQuarantine,
    UsageRecord,
)

__all__ = [
    "BudgetDay",
    "CatalogVersion",
    "CreditLot",
    "CreditLotEntry",
    "FailedDay",
    "FailedRequest",
    "LanguageModel",
    "LanguageModelAlias",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTransaction",
    "OrganizationBalance",
    "OrganizationPriceFactor",
    "PriceComponent",
    "PriceVersion",
    "Redemption",
    "RedemptionAttempts",
    "RedemptionCode",
    "RequestDetail",
    "ReratedRequest",
    "Rerating",
    "Route",
    "Upstream",
    "UsageCorrection",
    "UsageHour",
    "UsageQuarantine",
    "UsageRecord",
]

"""Operators' pages about the catalog, the ledger and usage. Most of it is to look at: money has one writer each."""

from billing.admin import catalog, ledger, redemption, usage

__all__ = ["catalog", "ledger", "redemption", "usage"]

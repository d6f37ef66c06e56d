"""Operators' pages, one module for each noun. Most of it is to look at: money has one writer each."""

from django.contrib import admin

from operations.admin import (
    alerts,
    approvals,
    audit,
    catalog,
    documents,
    jobs,
    keys,
    ledger,
    organizations,
    outbox,
    payments,
    people,
    price_factors,
    prices,
    reconciliation,
    redemption,
    upstreams,
    usage,
)

__all__ = [
    "alerts",
    "approvals",
    "audit",
    "catalog",
    "documents",
    "jobs",
    "keys",
    "ledger",
    "organizations",
    "outbox",
    "payments",
    "people",
    "price_factors",
    "prices",
    "reconciliation",
    "redemption",
    "upstreams",
    "usage",
]

admin.site.index_title = "Operations"

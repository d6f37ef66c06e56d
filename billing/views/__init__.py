"""Pages about money: overview, usage, receipts and billing."""

"""What a bookkeeper reads: statements, invoices, credit notes and receipts, all of them sums of ledger entries."""

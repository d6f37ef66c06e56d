"""Compares our books with each other and with those of providers, day by day and in cents."""

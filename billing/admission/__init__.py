"""Admission: the only reader and writer of money and limits in Redis. Each atomic step is one script of `scripts/`."""

"""Hybrid runs: several banks that decide on totals over all of them, before the same feature holders."""

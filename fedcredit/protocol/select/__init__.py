"""Rows that count, chosen under encryption: totals, bits and products of columns of those rows and of no others."""

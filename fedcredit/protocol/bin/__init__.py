"""Binning: encrypted counts of goods and bads by bin, WOE, IV, stability."""

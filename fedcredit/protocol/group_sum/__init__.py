"""Encrypted group sums between parties: reference string, groupings, requests and answers."""

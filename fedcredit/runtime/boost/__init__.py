"""Boosted trees: running them, their files, and what they are compared with."""

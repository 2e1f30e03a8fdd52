"""Gradient-boosted trees over the columns of several holders."""

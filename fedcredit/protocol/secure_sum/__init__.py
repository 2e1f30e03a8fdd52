"""Secure sums between banks: every bank learns the total of their vectors, and nobody anything else."""

"""The scorecard: running it, its files, and what it is compared with."""

"""Attacks on what a party really received; imported by tests and the command line alone."""

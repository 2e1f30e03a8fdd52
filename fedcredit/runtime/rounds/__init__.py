"""Runs that go round by round, over visits to each bank."""

"""Averaging of network models: its simulation, and what it is compared with."""

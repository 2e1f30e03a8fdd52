"""The protocols: one folder each, one file a role, straight-line coroutines over a channel, no I/O."""

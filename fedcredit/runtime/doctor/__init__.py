"""What can be wrong with a home before a run finds out: machine, network, records, policy."""

"""A run at the coordinator, from its proposal to its record, and what operators ask about it."""

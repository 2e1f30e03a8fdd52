"""What crosses the wire, captured and searched for what must not be there."""

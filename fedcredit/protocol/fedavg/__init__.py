"""One network over several banks' rows: what is averaged passes a secure sum, and nobody sees another's part."""

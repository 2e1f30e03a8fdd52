"""A holder's catalogue: raw tables described as data, features derived from them, nothing after the as-of day."""

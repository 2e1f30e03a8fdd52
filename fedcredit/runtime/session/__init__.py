"""One party's session in a run between houses, and its attempts at it."""

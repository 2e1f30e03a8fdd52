"""Templates of the files in a member's bundle."""

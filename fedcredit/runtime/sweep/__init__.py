"""Many simulated runs over a grid of settings."""

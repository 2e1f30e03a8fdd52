"""Several banks and feature holders in one simulated run."""

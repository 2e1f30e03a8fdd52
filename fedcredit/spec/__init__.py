"""The run's specification: from TOML to one frozen value with one digest."""

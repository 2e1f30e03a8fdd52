"""Where protocol code runs: channels and the drivers of whole runs."""

"""The app that relays and adds what it cannot read."""

"""Ciphers and what is built on them; nothing here knows of parties, messages or files."""

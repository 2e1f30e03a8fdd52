"""``python -m fedcredit.cli``: the program, for processes that start it with their own interpreter."""

from __future__ import annotations

import sys

from fedcredit.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

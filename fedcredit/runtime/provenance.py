"""What code a run was made with: package versions and the commit of the source tree."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["commit", "versions"]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result can depend on."""
    packages = ("fedcredit", "numpy", "numba", "scipy", "polars", "tenseal", "cryptography")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def commit() -> str | None:
    """Commit of the source tree this code runs from; None for an installed package or where git cannot tell."""
    root, git = Path(__file__).resolve().parents[2], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed arguments
    except (subprocess.SubprocessError, OSError):  # such as another user's tree, which git refuses to read
        return None
    return found.stdout.strip()

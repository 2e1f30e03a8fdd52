"""The Flower App: two lines of code that import what is installed, and nothing else.

Flower sends the app's code with every run to every node and runs it there. This bundle holds no code of its own, so its
digest says all there is to say about it, and a node can know without being told which one it accepts: the one that its
own installed package makes. It changes with the version of fedcredit and of Flower (its bytes are a deflated archive).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

from flwr.cli.build import build_fab_from_files

import fedcredit

__all__ = ["bundle_archive", "bundle_files", "bundle_sha256", "write_bundle"]

_PROJECT = """\
[project]
name = "fedcredit"
version = "{version}"
description = "Starts the installed packages; holds no code."
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedcredit"

[tool.flwr.app.components]
serverapp = "fedcredit_coordinator:app"
clientapp = "fedcredit_node:app"

[tool.flwr.app.config]
run = ""
"""
_ENTRY = '"""Entry into the installed package."""\n\nfrom {package}.app import app\n\n__all__ = ["app"]\n'


def bundle_files() -> dict[str, bytes]:
    """Content of the bundle by file name."""
    return {
        "pyproject.toml": _PROJECT.format(version=fedcredit.__version__).encode(),
        "fedcredit_coordinator.py": _ENTRY.format(package="coordinator").encode(),
        "fedcredit_node.py": _ENTRY.format(package="nodes").encode(),
    }


def bundle_sha256(files: Mapping[str, bytes] | None = None) -> str:
    """Digest of the bundle as Flower makes and names it.

    Args:
        files: Content by file name; None = the bundle of the installed package.
    """
    return hashlib.sha256(bundle_archive(files)).hexdigest()


def bundle_archive(files: Mapping[str, bytes] | None = None) -> bytes:
    """The bundle as Flower makes it.

    Args:
        files: Content by file name; None = the bundle of the installed package.
    """
    with warnings.catch_warnings():  # Flower uses patterns of file names that their library is about to rename
        warnings.simplefilter("ignore", DeprecationWarning)
        archive, _ = build_fab_from_files(dict(bundle_files() if files is None else files))
    return archive


def write_bundle(folder: Path) -> Path:
    """Writes the bundle's files into a folder of their own, for ``flwr run``; others in it are removed.

    Returns:
        The folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = bundle_files()
    for path in folder.iterdir():
        if path.name not in files and path.is_file():
            path.unlink()
    for name, content in files.items():
        part = folder / f".{name}"
        part.write_bytes(content)
        part.replace(folder / name)
    return folder

"""The Flower App: two lines of code that import what is installed, and nothing else.

Flower sends the app's code with every run to every node and runs it there. This bundle holds no code of its own, so its
digest says all there is to say about it, and a node can know without being told which one it accepts: the one that its
own installed package makes. It changes with the version of fedcredit and of Flower (its bytes are a deflated archive).
"""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
from collections.abc import Mapping
from io import BytesIO

import tomli_w

import fedcredit

__all__ = ["bundle_archive", "bundle_files", "bundle_sha256"]

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
_PROJECT_FILE, _LIST_FILE = "pyproject.toml", ".info/CONTENT"
_DATE = (2024, 10, 1, 0, 0, 0)  # of every file in a bundle
_ENTRY = '"""Entry into the installed package."""\n\nfrom {package}.app import app\n\n__all__ = ["app"]\n'


def bundle_files() -> dict[str, bytes]:
    """Content of the bundle by file name."""
    return {
        "pyproject.toml": _PROJECT.format(version=fedcredit.__version__).encode(),
        "fedcredit_coordinator.py": _ENTRY.format(package="coordinator").encode(),
        "fedcredit_node.py": _ENTRY.format(package="nodes").encode(),
    }


def bundle_sha256(files: Mapping[str, bytes] | None = None) -> str:
    """Digest of the bundle, by which Flower names it.

    Args:
        files: Content by file name; None = the bundle of the installed package.
    """
    return hashlib.sha256(bundle_archive(files)).hexdigest()


def bundle_archive(files: Mapping[str, bytes] | None = None) -> bytes:
    """The bundle, byte for byte as Flower's own builder makes it; without loading Flower, which takes seconds.

    Args:
        files: Content by file name, ``pyproject.toml`` among them; None = the bundle of the installed package.
    """
    content = dict(bundle_files() if files is None else files)
    project = tomli_w.dumps(tomllib.loads(content.pop(_PROJECT_FILE).decode())).encode()
    ordered = {_PROJECT_FILE: project, **dict(sorted(content.items()))}
    listed = [f"{name},{hashlib.sha256(data).hexdigest()},{8 * len(data)}" for name, data in ordered.items()]
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in {**ordered, _LIST_FILE: "\n".join(listed).encode()}.items():
            file.writestr(zipfile.ZipInfo(name, _DATE), data)
    return archive.getvalue()

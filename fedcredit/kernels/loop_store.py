"""Where compiled loops are kept: a folder that nobody else can write, because what lies in it is run.

One folder for each version of the loops and of the compiler, so a change of one loop makes those anew that call it; the
compiler itself keeps the code of different processors apart.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from fedcredit.errors import IntegrityError

__all__ = ["CACHE_VARIABLE", "LOOP_SOURCES", "UNUSABLE", "check_store", "loop_store", "store_place"]

CACHE_VARIABLE = "NUMBA_CACHE_DIR"
"""Environment variable: folder in which the folder of each version is made."""

UNUSABLE = "compiled.folder"
"""Code of the error where no compiled loop can be kept."""

LOOP_SOURCES = (
    "attack/posterior.py",
    "crypto/hint_sums.py",
    "crypto/lanes.py",
    "crypto/residues.py",
    "crypto/ring.py",
    "crypto/slots_arithmetic.py",
    "kernels/compiled.py",
    "kernels/denoise.py",
    "kernels/gradients.py",
    "kernels/histogram.py",
    "kernels/split_search.py",
    "kernels/tree_model.py",
    "kernels/tree_shap.py",
    "runtime/wire_proof/needles.py",
)
"""Files of the package that hold loops or what is written into them; their content names the version."""

_PACKAGE = Path(__file__).parents[1]
_OTHERS_WRITE, _OTHERS = stat.S_IWGRP | stat.S_IWOTH, stat.S_IRWXG | stat.S_IRWXO


def store_place(environment: Mapping[str, str]) -> Path:
    """The folder that an environment names for compiled loops: `CACHE_VARIABLE`, else the user's cache."""
    named = environment.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    cache = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or "/") / ".cache")
    return Path(cache) / "fedcredit" / "compiled"


def loop_store(environment: Mapping[str, str]) -> Path:
    """The folder of this version's compiled loops, made where it is not there.

    Raises:
        IntegrityError: it cannot be made or written, or others can write it or something in it.
    """
    folder = store_place(environment).absolute() / f"loops-{_version()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_store(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "no right to write there")
    except OSError as error:
        text = f"{folder}: compiled loops cannot be kept there ({error.strerror}); name a folder with {CACHE_VARIABLE}"
        raise IntegrityError(UNUSABLE, text) from None
    return folder


def check_store(folder: Path) -> None:
    """Refuses code that somebody else could have written.

    Folder and files have to be this user's or root's, and writable by nobody else, or in a folder that nobody else can
    enter; no folder above may be one in which everybody can put another in its place.

    Raises:
        IntegrityError: naming the path, what was found and what is right.
        OSError: it cannot be looked at.
    """
    for above in folder.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _refused(above, f"everybody can write it (mode {stat.S_IMODE(mode):04o}); chmod o-w is right")
    entered = folder.lstat().st_mode & _OTHERS
    for path in (folder, *sorted(folder.rglob("*"))):
        found = path.lstat()
        if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            raise _refused(path, "neither file nor folder; remove it")
        if found.st_uid not in {os.geteuid(), 0}:
            raise _refused(path, f"belongs to user {found.st_uid}; user {os.geteuid()} or root is right; remove it")
        if entered and found.st_mode & _OTHERS_WRITE:
            octal = f"{stat.S_IMODE(found.st_mode):04o}"
            raise _refused(path, f"others can write it (mode {octal}); remove the folder, it is made anew")


def _refused(path: Path, why: str) -> IntegrityError:
    return IntegrityError("compiled.others", f"{path}: compiled loops are not taken from here: {why}")


def _version() -> str:
    """Name of what the compiled loops follow from."""
    content = hashlib.sha256()
    for name in LOOP_SOURCES:
        content.update(hashlib.sha256((_PACKAGE / name).read_bytes()).digest())
    compiler = f"{sys.implementation.cache_tag} {version('numba')} {version('llvmlite')} {_PACKAGE}"
    return hashlib.sha256(content.digest() + compiler.encode()).hexdigest()[:16]

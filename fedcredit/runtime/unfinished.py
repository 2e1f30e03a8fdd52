"""Runs whose process was killed: where they are, whose they are, and that only one process goes on with each.

A run writes into a hidden folder, ``.OUT.RUN`` (`fedcredit.runtime.run_directory`). Its process holds a lock on a file
in it, which the system releases when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from fedcredit.errors import DataError, SpecError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.types import RunId

__all__ = [
    "IDENTITY_FILE",
    "LOCK_FILE",
    "FolderLock",
    "Identity",
    "Unfinished",
    "check_unchanged",
    "digest_of",
    "find_unfinished",
    "read_identity",
    "to_resume",
    "write_identity",
]

T = TypeVar("T")

IDENTITY_FILE, LOCK_FILE, _SUMMARY = "run.json", "lock", "summary.json"
_PATIENCE, _PAUSE = 10, 0.02  # tries and seconds: somebody who only looks holds the lock for a moment


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run is, written before its first message; ``run.json`` in its hidden folder.

    Attributes:
        run: Its name.
        spec_digest: Digest of its spec.
        seeded: Whether its secrets came from a seed.
        restarts: How often it went on after a kill.
        data: Digest of each party's records, and of the ids that are held out.
        ledgers: Folder of the ledgers; empty where they are in the run's own.
        versions: Of all that a result can depend on.
    """

    run: str
    spec_digest: str
    seeded: bool
    restarts: int
    data: dict[str, str]
    ledgers: str
    versions: dict[str, str]


class _Finished(msgspec.Struct, frozen=True):
    """The part of ``summary.json`` that says what the run is."""

    run_id: str
    spec_digest: str


@dataclass(frozen=True)
class Unfinished:
    """A run that has not reached its run directory.

    Args:
        out: The run directory it was to become.
        folder: Where it is.
        running: Whether its process is alive.
        identity: What it is; None for one that was stopped before its first message, or that only lacks its name.
        finished: Run and spec digest of one that has written everything, its summary included.
    """

    out: Path
    folder: Path
    running: bool
    identity: Identity | None
    finished: tuple[RunId, str] | None

    @property
    def run(self) -> RunId | None:
        """Its name; None where nothing was begun."""
        if self.finished is not None:
            return self.finished[0]
        return None if self.identity is None else RunId(self.identity.run)

    @property
    def spec_digest(self) -> str | None:
        """Digest of its spec; None where nothing was begun."""
        if self.finished is not None:
            return self.finished[1]
        return None if self.identity is None else self.identity.spec_digest

    @property
    def notice(self) -> str:
        """One line for whoever starts another run of the same name."""
        if self.running:
            return f"{self.out}: another run of it is still going on, in {self.folder}"
        if self.run is None:
            return f"{self.out}: a run of it was stopped before its first message; {self.folder} can be removed"
        return f"{self.out}: a run of it is unfinished; go on with it by --resume, or remove {self.folder}"


class FolderLock:
    """Held by the one process that works in a folder.

    Args:
        folder: The folder.

    Raises:
        SpecError: another process works in it, or has just ended its work.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        try:
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise _busy(folder) from None
        for _ in range(_PATIENCE):
            if _locked(self._file):
                break
            time.sleep(_PAUSE)
        else:
            os.close(self._file)
            raise _busy(folder)
        if not self._same():  # the folder was renamed, or cleared, between the two calls
            os.close(self._file)
            raise _busy(folder)

    def _same(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Lets the folder go."""
        os.close(self._file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(folder: Path) -> SpecError:
    return SpecError("resume.running", f"{folder}: this run is still running; wait for it, or stop its process")


def find_unfinished(out: Path) -> list[Unfinished]:
    """Unfinished runs of a run directory, by name of their folders."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}")
    try:
        folders = sorted(one for one in out.parent.iterdir() if name.fullmatch(one.name) and one.is_dir())
    except OSError:
        return []
    return [_look(out, folder) for folder in folders]


def _look(out: Path, folder: Path) -> Unfinished:
    summary = _read(folder / _SUMMARY, _Finished)
    finished = None if summary is None else (RunId(summary.run_id), summary.spec_digest)
    return Unfinished(out, folder, _is_running(folder), _read(folder / IDENTITY_FILE, Identity), finished)


def _is_running(folder: Path) -> bool:
    try:
        file = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(file)
    finally:
        os.close(file)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def digest_of(names: Sequence[str]) -> str:
    """SHA-256 of a list of names, in hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(list(names))).hexdigest()


def read_identity(folder: Path) -> Identity:
    """What the run in a folder is.

    Raises:
        SpecError: nothing was begun in it.
    """
    found = _read(folder / IDENTITY_FILE, Identity)
    if found is None:
        raise SpecError("resume.nothing", f"--resume: {folder} holds no run that has begun; remove it")
    return found


def write_identity(folder: Path, identity: Identity) -> None:
    """Writes ``run.json``, whole and on the disk: from now on the run can be resumed."""
    replace_file(folder / IDENTITY_FILE, msgspec.json.format(msgspec.json.encode(identity), indent=2))


def to_resume(out: Path, spec_digest: str) -> Unfinished:
    """The run that ``--resume`` goes on with.

    Raises:
        SpecError: there is none, there are several, it is still running, or it is of another spec.
    """
    found = find_unfinished(out)
    begun = [one for one in found if one.run is not None]
    if running := next((one for one in found if one.running), None):
        raise _busy(running.folder)
    if not begun:
        empty = "".join(f" ({one.folder} was stopped before its first message and can be removed)" for one in found)
        text = f"--resume: {out} has no unfinished run to go on with{empty}; run without --resume"
        raise SpecError("resume.nothing", text)
    if len(begun) > 1:
        names = ", ".join(str(one.folder) for one in begun)
        raise SpecError("resume.several", f"--resume: {out} has {len(begun)} unfinished runs, keep one of {names}")
    (one,) = begun
    if one.spec_digest != spec_digest:
        raise SpecError(
            "resume.spec",
            f"--resume: {one.folder} is of spec {one.spec_digest}, this configuration is {spec_digest}; use that of "
            f"{one.folder / 'spec.toml'}, or remove the folder",
        )
    return one


def check_unchanged(then: Identity, now: Identity, folder: Path) -> None:
    """Refuses to go on where the rest of a run would not fit what it has sent.

    Raises:
        DataError: a party's records have changed.
        SpecError: the held-out rows, the ledgers' folder or a version have changed.
    """
    for what, digest in now.data.items():
        if then.data.get(what) != digest:
            text = f"{what}: not the records that the unfinished run began with; bring them back, or remove {folder}"
            raise DataError("resume.data", text)
    if then.ledgers != now.ledgers:
        text = f"privacy.ledger_dir: {now.ledgers or 'none'}, the unfinished run began with {then.ledgers or 'none'}"
        raise SpecError("resume.ledgers", text)
    for name, version in then.versions.items():
        if now.versions.get(name) != version:
            text = f"{name} is {now.versions.get(name)}, the unfinished run began with {version}; use that, or remove"
            raise SpecError("resume.versions", f"{text} {folder}")

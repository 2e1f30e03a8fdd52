"""The run directory: all that a run leaves behind, complete or not there at all.

A run writes into a hidden folder beside the one asked for, ``.OUT.RUN``, which is renamed when everything is in it.
A run that fails for its input leaves nothing; one that fails among its parties leaves its audit logs and ledgers under
the name ``OUT.failed-RUN``, because what was disclosed stays disclosed. One that was killed or interrupted leaves the
hidden folder, with the secrets and checkpoints that are needed to go on; they are never in a run directory.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fedcredit.errors import BoundError, DataError, SpecError
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.runtime.unfinished import IDENTITY_FILE, LOCK_FILE, FolderLock
from fedcredit.types import RunId

if TYPE_CHECKING:
    from fedcredit.runtime.quality import HeldOut

__all__ = ["RunFiles", "run_directory"]

_INPUT = (SpecError, DataError, BoundError, OSError)
_EVIDENCE = frozenset({"audit", "ledger", "escrow", "spec.toml"})
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class RunFiles:
    """Writes the files of one run into its folder.

    Args:
        folder: The folder.
        resumed: Whether a process before this one began the run.
    """

    def __init__(self, folder: Path, *, resumed: bool = False) -> None:
        self.folder = folder
        self.resumed = resumed

    @property
    def audit(self) -> Path:
        """Folder of the audit logs."""
        return self.folder / "audit"

    @property
    def secrets(self) -> Path:
        """Folder of the run secrets; gone when the run has ended."""
        return self.folder / "secrets"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; gone when the run has ended."""
        return self.folder / "checkpoints"

    @property
    def kept(self) -> Path:
        """Folder of what parties cannot draw again, secret keys among it; gone when the run has ended."""
        return self.folder / "kept"

    @property
    def headroom(self) -> Path:
        """Folder of what ledgers said they would allow; gone when the run has ended."""
        return self.folder / "headroom"

    def stays_after(self, kind: type[BaseException]) -> bool:
        """Whether the folder stays as it is after an error of this kind, for another process to go on with."""
        if issubclass(kind, KeyboardInterrupt):
            return (self.folder / IDENTITY_FILE).exists()
        return self.resumed and issubclass(kind, _INPUT)

    def end(self) -> None:
        """Removes what only an unfinished run needs, secrets first."""
        for folder in (self.secrets, self.kept, self.checkpoints, self.headroom):
            if folder.exists():
                shutil.rmtree(folder)
        (self.folder / IDENTITY_FILE).unlink(missing_ok=True)

    def text(self, name: str, content: str) -> None:
        """Writes a text file; a process that is killed leaves it whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)

    def json(self, name: str, content: Any) -> None:
        """Writes a JSON file; infinite or missing numbers must have become null before."""
        self.text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def transcript(self, entries: Sequence[TranscriptEntry]) -> None:
        """Writes one line a message."""
        lines = []
        for entry in entries:
            fields = asdict(entry)
            kind, digest = fields.pop("kind"), fields.pop("body_sha256")
            lines.append(json.dumps({**fields, "type": kind, "sha256": digest}))
        self.text("transcript.jsonl", "".join(line + "\n" for line in lines))

    def predictions(self, rows: HeldOut) -> None:
        """Writes the held-out rows."""
        frame = pl.DataFrame(
            {
                "id": list(rows.ids),
                "label": rows.bad,
                "score": rows.score,
                "probability": rows.probability,
                "sample_probability": rows.sample_probability,
                "score_alone": rows.alone if rows.alone is not None else [None] * len(rows.ids),
            },
            schema_overrides={"score_alone": pl.Int64},
        )
        self.table("predictions.parquet", frame)

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a Parquet file."""
        frame.write_parquet(self.folder / name)

    def parts(self, parts: Mapping[str, Mapping[str, Any]], name: str) -> None:
        """Writes each party's part of the model under one name, such as ``scorecard.json``, in the party's folder."""
        for party, part in parts.items():
            self.json(f"model/{party}/{name}", part)


@contextmanager
def run_directory(out: Path, run: RunId, resumed: Path | None = None) -> Iterator[RunFiles]:
    """A folder that appears under its name only when the block has ended well.

    Args:
        out: The run directory.
        run: Name of the run.
        resumed: The hidden folder of a process before this one, to go on with.

    Raises:
        SpecError: ``out`` exists, its parent can not be written, or another process works in the folder.
    """
    if out.exists() or out.is_symlink():
        raise SpecError("out.exists", f"--out {out}: exists already; name a new folder, runs are never overwritten")
    staging = resumed or out.parent / f".{out.name}.{run[:8]}"
    made = [folder for folder in out.parents if not folder.exists()]
    if resumed is None:
        try:
            staging.mkdir(parents=True)
        except OSError as error:
            raise SpecError("out.unwritable", f"--out {out}: {error.strerror or 'cannot be created'}") from None
    lock, files = FolderLock(staging), RunFiles(staging, resumed=resumed is not None)
    try:
        yield files
        files.end()
        _appear(staging, out, run)
    except BaseException as error:
        _clear(files, error, (out.parent / f"{out.name}.failed-{run[:8]}", made))
        raise
    finally:
        lock.close()


def _appear(staging: Path, out: Path, run: RunId) -> None:
    """Gives the folder its name, then takes the lock's file out: nobody can have locked it in between."""
    try:
        staging.rename(out)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        other = out.with_name(f"{out.name}.{run[:8]}")
        staging.rename(other)
        (other / LOCK_FILE).unlink(missing_ok=True)
        raise SpecError("out.exists", f"--out {out}: came to exist during the run; this run is in {other}") from None
    (out / LOCK_FILE).unlink(missing_ok=True)


def _clear(files: RunFiles, error: BaseException, places: tuple[Path, Sequence[Path]]) -> None:
    """What a run leaves that did not end well."""
    staging, (kept, made) = files.folder, places
    if not staging.exists() or files.stays_after(type(error)):
        return
    begun = (staging / IDENTITY_FILE).exists() or files.audit.exists()
    if isinstance(error, _INPUT) or (isinstance(error, KeyboardInterrupt) and not begun):
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # another run has put something there meanwhile
                folder.rmdir()
        return
    for path in list(staging.iterdir()):
        if path.name not in {*_EVIDENCE, LOCK_FILE}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    staging.rename(kept)
    (kept / LOCK_FILE).unlink(missing_ok=True)

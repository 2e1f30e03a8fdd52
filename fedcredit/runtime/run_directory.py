"""The run directory: all that a run leaves behind, complete or not there at all.

A run writes into a hidden folder beside the one asked for, which is renamed when everything is in it. A run that fails
for its input leaves nothing; one that fails among its parties leaves its audit logs and ledgers under the name
``OUT.failed-RUN``, because what was disclosed stays disclosed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from fedcredit.errors import BoundError, DataError, SpecError
from fedcredit.runtime.local import TranscriptEntry
from fedcredit.runtime.quality import HeldOut
from fedcredit.types import RunId

__all__ = ["RunFiles", "run_directory"]


class RunFiles:
    """Writes the files of one run into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def audit(self) -> Path:
        """Folder of the audit logs."""
        return self.folder / "audit"

    def text(self, name: str, content: str) -> None:
        """Writes a text file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

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
        self.frame("predictions.parquet", frame)

    def frame(self, name: str, frame: pl.DataFrame) -> None:
        """Writes a Parquet file."""
        frame.write_parquet(self.folder / name)

    def parts(self, parts: Mapping[str, Mapping[str, Any]], name: str) -> None:
        """Writes each party's part of the model under one name, such as ``scorecard.json``, in the party's folder."""
        for party, part in parts.items():
            self.json(f"model/{party}/{name}", part)


@contextmanager
def run_directory(out: Path, run: RunId) -> Iterator[RunFiles]:
    """A folder that appears under its name only when the block has ended well.

    Raises:
        SpecError: ``out`` exists, or its parent can not be written.
    """
    if out.exists() or out.is_symlink():
        raise SpecError("out.exists", f"--out {out}: exists already; name a new folder, runs are never overwritten")
    staging = out.parent / f".{out.name}.{run[:8]}"
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise SpecError("out.unwritable", f"--out {out}: {error.strerror or 'cannot be created'}") from None
    try:
        yield RunFiles(staging)
        staging.rename(out)
    except (SpecError, DataError, BoundError, OSError):
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # another run has put something there meanwhile
                folder.rmdir()
        raise
    except BaseException:
        _keep_evidence(staging, out.parent / f"{out.name}.failed-{run[:8]}")
        raise


def _keep_evidence(staging: Path, kept: Path) -> None:
    for path in list(staging.iterdir()):
        if path.name not in {"audit", "ledger", "escrow", "spec.toml"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    staging.rename(kept)

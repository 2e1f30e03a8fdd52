"""Reads a run directory: only the files a party may see, each one checked before a word of it is shown.

The files are declared as structs. What a struct does not name is not read; a file that does not fit its struct is
refused by name, with the place inside it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fedcredit.errors import DataError, IntegrityError
from fedcredit.report.files import Leakage, Scorecard, Sent, Settings, Summary
from fedcredit.runtime.boost.files import HolderFile, LabelFile, read_part
from fedcredit.runtime.boost.read import boosted_trees, own_splits

__all__ = [
    "check_owners",
    "damaged",
    "file_bytes",
    "party_names",
    "read_heads",
    "read_leakage",
    "read_own_trees",
    "read_scorecard",
    "read_settings",
    "read_summary",
    "read_transcript",
    "read_trees",
]

T = TypeVar("T")
_File = TypeVar("_File", HolderFile, LabelFile)


def file_bytes(path: Path, run: Path) -> bytes:
    """The bytes of a file of a run.

    Raises:
        DataError: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        name = path.relative_to(run).as_posix()
        raise DataError(
            "report.missing-file",
            f"run directory {run}: {name} is missing or cannot be read; a finished run has it",
            str(error),
        ) from error


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # The text of the error names a place and a type; it never repeats a value of the file.
        raise damaged(f"{name} is damaged: {error}") from error


def damaged(what: str) -> DataError:
    """The error for a file that no run can have written."""
    return DataError("report.damaged-file", what)


def read_summary(run: Path) -> Summary:
    """The run's summary.

    Raises:
        DataError: summary.json is missing or does not fit.
    """
    return _decode(file_bytes(run / "summary.json", run), Summary, "summary.json")


def party_names(summary: Summary) -> tuple[str, ...]:
    """Parties of the run, the label holder first, the others in the order of the summary."""
    others = [name for name in summary.parties if name != summary.bank]
    return (summary.bank, *others)


def read_scorecard(run: Path, party: str) -> Scorecard:
    """One party's own part of the model; no other party's file is opened.

    Args:
        run: Run directory.
        party: A party that is known to be in the run.

    Raises:
        DataError: The file is missing, does not fit, or is another party's.
    """
    name = f"model/{party}/scorecard.json"
    card = _decode(file_bytes(run / "model" / party / "scorecard.json", run), Scorecard, name)
    if card.party != party:
        raise damaged(f"{name} says that it is another party's; it must say {party!r}")
    return card


def read_trees(run: Path, party: str) -> LabelFile:
    """The label holder's file of boosted trees, sound throughout.

    Raises:
        DataError: The file is missing, does not fit, holds no trees that a run can have grown, or is another party's.
    """
    file, part, name = _part(run, party, LabelFile)
    try:
        boosted_trees(part)
    except IntegrityError as error:
        raise damaged(f"{name} is damaged: {error.public}") from error
    if not file.trees or any(one.left is not None and one.label is None for one in file.splits):
        raise damaged(f"{name} is damaged: it must hold a tree, and a label for each split of {party!r}")
    return file


def read_own_trees(run: Path, party: str) -> HolderFile:
    """A feature holder's file of its columns and splits.

    Raises:
        DataError: The file is missing, does not fit, or is another party's.
    """
    file, part, name = _part(run, party, HolderFile)
    try:
        own_splits(part)
    except IntegrityError as error:
        raise damaged(f"{name} is damaged: {error.public}") from error
    return file


def _part(run: Path, party: str, kind: type[_File]) -> tuple[_File, dict[str, Any], str]:
    name = f"model/{party}/trees.json"
    part = _decode(file_bytes(run / "model" / party / "trees.json", run), dict[str, Any], name)
    if part.get("party") != party:
        raise damaged(f"{name} says that it is another party's; it must say {party!r}")
    try:
        return read_part(part, kind), part, name
    except IntegrityError as error:
        raise damaged(f"{name} is damaged: {error.public}") from error


def check_owners(owners: Iterable[str], parties: Iterable[str], name: str) -> None:
    """That every feature of a file is of a party of the run.

    Raises:
        DataError: One is not.
    """
    if set(owners) - set(parties):
        raise damaged(f"{name} holds a feature of a party that summary.json does not name")


def read_settings(run: Path) -> Settings:
    """What the specification says of protection.

    Raises:
        DataError: spec.toml is missing or does not fit.
    """
    data = file_bytes(run / "spec.toml", run)
    try:
        return msgspec.convert(tomllib.loads(data.decode()), Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise damaged(f"spec.toml is damaged: {error}") from error


def read_leakage(run: Path) -> Leakage:
    """What each party learned, step by step, and the disclosure ledgers.

    Raises:
        DataError: leakage.json is missing or does not fit.
    """
    return _decode(file_bytes(run / "leakage.json", run), Leakage, "leakage.json")


def read_transcript(run: Path) -> tuple[Sent, ...]:
    """Every message of the run in order: who, to whom, of what kind, how large.

    Raises:
        DataError: transcript.jsonl is missing, or a line does not fit (named by its number).
    """
    data = file_bytes(run / "transcript.jsonl", run)
    decoder = msgspec.json.Decoder(Sent)
    sent: list[Sent] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            sent.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise damaged(f"transcript.jsonl line {number} is damaged: {error}") from error
    return tuple(sent)


def read_heads(run: Path) -> dict[str, str]:
    """Head of each party's audit chain, in hexadecimal, by party name.

    Raises:
        DataError: audit/heads.json is missing or does not fit.
    """
    name = "audit/heads.json"
    heads = _decode(file_bytes(run / "audit" / "heads.json", run), dict[str, str], name)
    return dict(sorted(heads.items()))

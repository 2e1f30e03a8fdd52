"""Records whose every value can be recognised, and what of them may be known where."""

from __future__ import annotations

import hashlib
import struct
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from fedcredit.runtime.wire_proof.needles import LEAST_BYTES, forms
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId

BANK = PartyId("bank")
HOLDERS = ("tax_office", "customs", "utility")
BOOST = {"run": {"model": "boost"}, "boost": {"trees": 3, "depth": 2, "min_child_rows": 20}}
LABELS = "defaulted_within_a_year"
WINDOW = 32
"""Labels in a row that are looked for as one string, so that no other string of zeros and ones is meant."""


@dataclass(frozen=True)
class Secrets:
    """Bytes of one party's records that can be recognised.

    Args:
        ids: By id.
        values: Of columns, in text and binary.
        labels: Runs of labels in the order of the file, in several types; the label holder's alone.
        names: Of columns and categories.
    """

    ids: Mapping[str, bytes] = field(repr=False)
    values: frozenset[bytes] = field(repr=False)
    labels: frozenset[bytes] = field(repr=False)
    names: frozenset[bytes] = field(repr=False)

    def everything(self, spared: Iterable[str] = ()) -> dict[bytes, str]:
        """All of it, by what it is; without some ids."""
        ids = {word: "id" for one, word in self.ids.items() if one not in set(spared)}
        named = {"value": self.values, "labels": self.labels, "name": self.names}
        return {**ids, **{word: what for what, words in named.items() for word in words}}


def token(*words: object) -> str:
    """A word that nothing else writes."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:12].upper()


def recognisable(write: Callable[..., Path], folder: Path, **options: Any) -> tuple[LoadedSpec, dict[PartyId, Secrets]]:
    """Writes a consortium, gives each value a form of its own, and lists them."""
    config = write(folder, holders=HOLDERS, **options)
    content = tomllib.loads(config.read_text("utf-8"))
    found = {}
    for section in content["party"]:
        path = folder / section["source"]
        frame, section["columns"] = _marked(section["name"], pl.read_csv(path), section["columns"])
        for key in ("special", "monotone"):
            section[key] = {_renamed(section["name"], name): value for name, value in section.get(key, {}).items()}
        if "label" in section:
            section["label"] = LABELS
        frame.write_csv(path)
        found[PartyId(section["name"])] = _secrets(frame, section["columns"])
    config.write_text(tomli_w.dumps(content), encoding="utf-8")
    return load_spec(config), found


def _renamed(party: str, name: str) -> str:
    return f"{name}_{token(party, name)}"


def _marked(party: str, frame: pl.DataFrame, columns: list[str]) -> tuple[pl.DataFrame, list[str]]:
    """Ids and categories become tokens, amounts whole numbers of 15 digits, the rest numbers with all their digits."""
    marked = [pl.col("id").map_elements(lambda one: token("id", one), return_dtype=pl.String)]
    if "bad" in frame.columns:
        marked.append(pl.col("bad").alias(LABELS))
    for name in columns:
        values = pl.col(name)
        if name.startswith("sector"):
            values = values.map_elements(lambda one: f"branch-{token(party, one)}", return_dtype=pl.String)
        elif name.startswith("arrears"):
            values = (values * 1e14).round(0).cast(pl.Int64)
        elif name.startswith("turnover"):
            values = values + pl.int_range(pl.len()) * 1.234567e-9
        marked.append(values.alias(_renamed(party, name)))
    return frame.select(marked), [_renamed(party, name) for name in columns]


def _secrets(frame: pl.DataFrame, columns: list[str]) -> Secrets:
    values = {
        form
        for name in columns
        if name.startswith(("arrears", "turnover"))
        for value in frame[name].drop_nulls().to_list()
        for form in forms(value)
    }
    categories = {one.encode() for name in columns if name.startswith("sector") for one in frame[name].unique()}
    names = {name.encode() for name in [*columns, LABELS] if name in frame.columns}
    labels: set[bytes] = set()
    if LABELS in frame.columns:
        told = frame[LABELS].to_list()
        rows = zip(frame["id"].to_list(), told, strict=True)
        labels |= {f"{one},{label},".encode() for one, label in rows}
        for start in range(0, len(told) - WINDOW, WINDOW):
            part = told[start : start + WINDOW]
            labels |= {bytes(part), *(struct.pack(f"<{WINDOW}{kind}", *part) for kind in "qd")}
    return Secrets(
        {one: one.encode() for one in frame["id"].to_list()},
        frozenset(word for word in values if len(word) >= LEAST_BYTES),
        frozenset(labels),
        frozenset(names | categories),
    )

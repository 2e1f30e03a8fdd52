"""Small synthetic parties for rehearsals: files and a spec in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedcredit.spec.load import LoadedSpec, load_spec

__all__ = ["BY_REGISTER", "LABEL_HOLDER", "PLAIN_SAME_ROWS", "REGISTER", "Sample", "write_sample"]

LABEL_HOLDER = "bank"
"""Name of the party that has the label; the others hold features."""

REGISTER = "register.csv"
"""The public register: every id of a sample in another order, written where `Sample.align` names it."""

BY_REGISTER = f'mode = "registry"\nregistry = "{REGISTER}"'
"""`Sample.align` of a run in which nobody learns who is a customer."""

PLAIN_SAME_ROWS = 'mode = "plain"\nrows = "label_holder"'
"""`Sample.align` of a run over the same rows in the open."""

_DIGITS = 6


@dataclass(frozen=True)
class Sample:
    """What to draw.

    Args:
        rows: Number of rows of the label holder, and at every other party unless ``strangers`` or ``known`` says else.
        columns: Number of numeric columns of each party, `LABEL_HOLDER` among them.
        bad_rate: Share of defaulters, in (0, 1).
        shared: Correlation of every column with one factor that all parties share, in [0, 1).
        seed: Of the draw.
        sections: TOML after the parties: ``[bin]``, ``[scorecard]`` and so on.
        idle: Columns that each feature holder has besides: of no use and of nobody else's kind, so that only what was
            disclosed can tell them.
        model: ``run.model``.
        align: Lines of the section ``[align]``.
        strangers: Ids of the register that are no rows of the label holder; the others have such columns of them too.
        known: Share of all ids that each feature holder knows, another draw at each of them; the rest is missing there.
    """

    rows: int
    columns: Mapping[str, int]
    bad_rate: float = 0.25
    shared: float = 0.3
    seed: int = 1
    sections: str = ""
    idle: int = 0
    model: str = "scorecard"
    align: str = 'mode = "plain"'
    strangers: int = 0
    known: float = 1.0


def write_sample(folder: Path, sample: Sample) -> LoadedSpec:
    """Writes one CSV file a party and ``run.toml``; every column lowers the risk, with falling strength."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(sample.seed)
    factor = source.normal(size=(sample.rows, 1))
    own = np.sqrt(1.0 - sample.shared**2)
    values = {
        party: np.round(sample.shared * factor + own * source.normal(size=(sample.rows, count)), _DIGITS)
        for party, count in sample.columns.items()
    }
    safety = sum(table @ np.linspace(0.9, 0.5, table.shape[1]) for table in values.values())
    safety = np.asarray(safety) + source.logistic(size=sample.rows)
    bad = (safety <= np.quantile(safety, sample.bad_rate)).astype(np.int64)
    for party in sample.columns:
        if sample.idle and party != LABEL_HOLDER:
            more = np.round(source.normal(size=(sample.rows, sample.idle)), _DIGITS)
            values[party] = np.concatenate([values[party], more], axis=1)
    ids = [f"r{row:05d}" for row in range(sample.rows + sample.strangers)]
    for number, (party, table) in enumerate(values.items()):
        held, places = (table, range(sample.rows)) if party == LABEL_HOLDER else _at_holder(sample, table, number)
        columns: dict[str, object] = {"id": [ids[place] for place in places]}
        columns |= {f"{party}_{place}": held[:, place] for place in range(held.shape[1])}
        if party == LABEL_HOLDER:
            columns["bad"] = bad
        pl.DataFrame(columns).write_csv(folder / f"{party}.csv")
    if REGISTER in sample.align:
        order = np.random.default_rng((sample.seed, len(ids))).permutation(len(ids))
        pl.DataFrame({"id": [ids[place] for place in order]}).write_csv(folder / REGISTER)
    head = f'[run]\nname = "sample"\nmode = "simulation"\nmodel = "{sample.model}"\n[align]\n{sample.align}\n'
    parties = "".join(_party(party) for party in sample.columns)
    (folder / "run.toml").write_text(head + parties + sample.sections, encoding="utf-8")
    return load_spec(folder / "run.toml")


def _at_holder(sample: Sample, table: NDArray[np.float64], number: int) -> tuple[NDArray[np.float64], Sequence[int]]:
    """A feature holder's columns, those of strangers added, and the ids it knows."""
    source = np.random.default_rng((sample.seed, number))
    strangers = np.round(source.normal(size=(sample.strangers, table.shape[1])), _DIGITS)
    count = sample.rows + sample.strangers
    kept = np.sort(source.permutation(count)[: round(sample.known * count)])
    return np.concatenate([table, strangers])[kept], kept.tolist()


def _party(name: str) -> str:
    leads = name == LABEL_HOLDER
    role, label = ("label_holder", 'label = "bad"\n') if leads else ("feature_holder", "")
    return f'[[party]]\nname = "{name}"\nrole = "{role}"\nsource = "{name}.csv"\n{label}'

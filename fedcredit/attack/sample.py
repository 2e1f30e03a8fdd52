"""Small synthetic parties for rehearsals: files and a spec in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedcredit.spec.load import LoadedSpec, load_spec

__all__ = ["LABEL_HOLDER", "Sample", "write_sample"]

LABEL_HOLDER = "bank"
"""Name of the party that has the label; the others hold features."""

_DIGITS = 6


@dataclass(frozen=True)
class Sample:
    """What to draw.

    Args:
        rows: Number of rows, the same at every party.
        columns: Number of numeric columns of each party, `LABEL_HOLDER` among them.
        bad_rate: Share of defaulters, in (0, 1).
        shared: Correlation of every column with one factor that all parties share, in [0, 1).
        seed: Of the draw.
        sections: TOML after the parties: ``[bin]``, ``[scorecard]`` and so on.
        idle: Columns that each feature holder has besides: of no use and of nobody else's kind, so that only what was
            disclosed can tell them.
        model: ``run.model``.
    """

    rows: int
    columns: Mapping[str, int]
    bad_rate: float = 0.25
    shared: float = 0.3
    seed: int = 1
    sections: str = ""
    idle: int = 0
    model: str = "scorecard"


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
    for party, table in values.items():
        columns: dict[str, object] = {"id": [f"r{row:05d}" for row in range(sample.rows)]}
        columns |= {f"{party}_{place}": table[:, place] for place in range(table.shape[1])}
        if party == LABEL_HOLDER:
            columns["bad"] = bad
        pl.DataFrame(columns).write_csv(folder / f"{party}.csv")
    head = f'[run]\nname = "sample"\nmode = "simulation"\nmodel = "{sample.model}"\n[align]\nmode = "plain"\n'
    parties = "".join(_party(party) for party in sample.columns)
    (folder / "run.toml").write_text(head + parties + sample.sections, encoding="utf-8")
    return load_spec(folder / "run.toml")


def _party(name: str) -> str:
    leads = name == LABEL_HOLDER
    role, label = ("label_holder", 'label = "bad"\n') if leads else ("feature_holder", "")
    return f'[[party]]\nname = "{name}"\nrole = "{role}"\nsource = "{name}.csv"\n{label}'

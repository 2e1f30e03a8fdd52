"""Draws docs/img/district.svg: what five holders see of one enterprise that will default and of one that will not.

python benchmarks/district_picture.py DIR docs/img/district.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from fedcredit.data.district.write import read_back
from fedcredit.kernels.uscc import normalise

SERIES = (
    ("bank_1.sqlite", "flows", "sales_receipts", "bank: receipts"),
    ("tax_office.sqlite", "returns", "vat_sales", "tax office: invoiced sales"),
    ("electricity", "usage", "kwh", "electricity: kWh"),
    ("social_insurance.sqlite", "contributions", "insured", "social insurance: head-count"),
    ("water", "usage", "volume_m3", "water: m³"),
    ("electricity", "usage", "paid_on", "electricity: days to payment"),
)
MONTHS = [f"{2024 + month // 12}-{month % 12 + 1:02d}-01" for month in range(27)]
COLOURS = {"defaults": "#b3261e", "healthy": "#1b5e8c"}


def series(frame: pl.DataFrame, code: str, column: str) -> NDArray[np.float64]:
    """27 months of one enterprise; of a date, days after the month's end."""
    rows = frame.filter(pl.col("uscc") == code).unique("month", keep="last", maintain_order=True)
    if column == "paid_on":
        days = rows[column].str.to_date() - rows["month"].str.to_date().dt.month_end()
        rows = rows.with_columns(days.dt.total_days().alias(column))
    found = dict(zip(rows["month"], rows[column], strict=True))
    return np.array([np.nan if found.get(month) is None else float(found[month]) for month in MONTHS])


def chosen(folder: Path, frames: Sequence[pl.DataFrame]) -> dict[str, str]:
    """A small enterprise that is ill and defaults in summer, and a sound one, both known to all; the first found."""
    truth = pl.read_parquet(folder / "truth.parquet").filter(pl.col("firm_size") == "small")
    truth = truth.filter(pl.col("volatility") < 0.3).sort("uscc")
    for frame in frames:  # two years and more in every source
        long = frame.group_by("uscc").agg(pl.col("month").n_unique().alias("months")).filter(pl.col("months") >= 26)
        truth = truth.filter(pl.col("uscc").is_in(long["uscc"].implode()))
    ill = truth.filter(pl.col("defaulted_on").is_between(pl.lit("2026-05-01"), pl.lit("2026-09-30")))
    ill = ill.filter(pl.col("demand") < -1.4, pl.col("liquidity") < -1.4)
    sound = truth.filter(pl.col("defaulted_on").is_null(), pl.col("demand").abs() < 0.3, pl.col("liquidity") > 0)
    return {"defaults": ill["uscc"][0], "healthy": sound["uscc"][0]}


def main(folder: Path, out: Path) -> None:
    mpl.rcParams.update({"svg.hashsalt": "district", "font.size": 8, "svg.fonttype": "none"})
    frames = []
    for source, table, _, _ in SERIES:
        frame = read_back(folder / source, table)
        frames.append(frame.with_columns(normalise(frame["uscc"])))
    codes = chosen(folder, frames)
    figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.0), sharex=True, layout="constrained")
    for axis, frame, (_, _, column, title) in zip(axes.flat, frames, SERIES, strict=True):
        for name, code in codes.items():
            values = series(frame, code, column)
            if column != "paid_on":
                values = 100 * values / np.nanmean(values[:12])
            axis.plot(range(27), values, color=COLOURS[name], lw=1.3, marker=".", ms=3, label=name)
        axis.axvline(23.5, color="#777", lw=0.8, ls=":")
        axis.set_title(title, fontsize=8, loc="left")
        axis.set_ylim(bottom=0)
        axis.set_xticks([0, 6, 12, 18, 24], ["1/24", "7/24", "1/25", "7/25", "1/26"])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("2024 = 100")
    axes[1, 0].set_ylabel("2024 = 100")
    axes[1, 2].set_ylabel("days")
    axes[0, 0].legend(frameon=False, loc="upper right", fontsize=7)
    figure.savefig(out, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

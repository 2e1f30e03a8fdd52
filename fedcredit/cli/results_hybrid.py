"""The last words of a hybrid run on the terminal: every model, and every bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["show_hybrid"]

Summary = Mapping[str, Any]


def show_hybrid(console: Console, summary: Summary) -> None:
    """Prints the tables of a run of several banks with feature holders.

    Args:
        console: Where.
        summary: Content of ``summary.json``.
    """
    hybrid = summary["hybrid"]
    models, banks = hybrid["models"], hybrid["banks"]
    title = f"{summary['name']}: {len(banks)} banks, {summary['rows_test']:,} held-out rows"
    table = Table(title=title, caption="AUC on each bank's own held-out rows; the mean counts banks by these")
    table.add_column("bank")
    table.add_column("rows", justify="right")
    for model in models:
        table.add_column(model["name"], justify="right", style="bold" if model["key"] == hybrid["main"] else "")
    for bank in sorted(banks, key=lambda one: -one["rows_train"]):
        found = [bank["auc"][model["key"]] for model in models]
        best = max(found)
        cells = [Text(f"{auc:.4f}", style="green" if auc == best else "") for auc in found]
        table.add_row(bank["name"], f"{bank['rows_train']:,}", *cells)
    table.add_section()
    table.add_row("mean", f"{summary['rows_train']:,}", *(f"{model['auc']:.4f}" for model in models), style="bold")
    console.print(table)
    same = "equal, score by score, to the same steps on all rows in one place"
    if not hybrid["equal_pooled_plaintext"]:
        console.print(Text("NOT EQUAL to the same steps on all rows in one place", style="bold white on red"))
    else:
        console.print(Text(f"Exact: {same}", style="green"))
    added = f"{hybrid['sums']} secure sums ({hybrid['secure_sum']}) of {hybrid['values_summed']:,} values"
    console.print(f"Between banks: {added}", soft_wrap=True)

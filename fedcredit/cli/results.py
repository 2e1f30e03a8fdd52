"""The last words of a run on the terminal: a table of how good the model is, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout
from fedcredit.cli.results_averaged import show_averaged
from fedcredit.cli.results_hybrid import show_hybrid
from fedcredit.runtime.runs.driver_parts import IN_ROUNDS

__all__ = ["VIEWS", "Row", "View", "show_results"]

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        label: What was measured.
        auc: On the held-out rows; None where there is nothing to measure.
        ks: As above.
        main: Whether this is the run's own model.
    """

    label: str
    auc: float | None
    ks: float | None
    main: bool = False


@dataclass(frozen=True)
class View:
    """How the runs of one model are printed.

    Args:
        name: Head of the first column.
        rows: Lines of the table, from ``summary.json``.
        notes: Lines below what every run says it disclosed; none where nothing has to be said.
    """

    name: str
    rows: Callable[[Summary], Iterable[Row]]
    notes: Callable[[Summary], Iterable[Text]]


def show_results(summary: Summary, report: Path) -> None:
    """Prints the end of a run.

    Args:
        summary: Content of ``summary.json``.
        report: Where the report is.
    """
    if summary["model"] in IN_ROUNDS:
        show_averaged(summary, report)
        return
    console = stdout()
    if summary.get("hybrid") is not None:
        show_hybrid(console, summary)
        _show_rest(console, summary, report, ())
        return
    view = VIEWS[summary["model"]]
    table = Table(title=f"{summary['name']}: {summary['rows_test']:,} held-out rows, {summary['positives_test']:,} bad")
    for name in (view.name, "AUC", "KS"):
        table.add_column(name, justify="left" if name == view.name else "right")
    for row in view.rows(summary):
        cells = ("—" if figure is None else f"{figure:.4f}" for figure in (row.auc, row.ks))
        table.add_row(row.label, *cells, style="bold" if row.main else "")
    console.print(table)
    _show_rest(console, summary, report, (_rows_line(summary), *view.notes(summary)))


def _show_rest(console: Console, summary: Summary, report: Path, notes: Iterable[Text]) -> None:
    """What every run says: how it was protected, what it disclosed, what it took."""
    console.print(_encryption_line(summary["encryption"]))
    for note in notes:
        console.print(note, soft_wrap=True)
    spent = summary["disclosure"]
    console.print(
        f"Disclosed at most: {_of(spent['equations_per_feature'], spent['cap'])} equations a feature, "
        f"{_of(spent['bits_per_row'], spent['bits_per_row_cap'])} bits a row, "
        f"{_of(spent['bins_returned'], spent['bins_returned_cap'])} bins returned",
        soft_wrap=True,
    )
    console.print(f"{summary['seconds']['total']:.1f} s, {summary['max_rss_mb']:.0f} MB", soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True)


def _rows_line(summary: Summary) -> Text:
    """How rows were found, and who learned who is a customer."""
    align, rows = summary["align"], summary["rows_common"]
    own = summary["rows_train"] + summary["rows_test"]
    if align["mode"] == "registry":
        return Text(f"Rows: {own:,} of the register's {rows:,} count; nobody learned who banks where")
    if align["mode"] == "blind" and align["decoys"]:
        return Text(f"Rows: {own:,} customers among {rows:,} common rows; no feature holder can tell which")
    if align["mode"] == "blind":
        return Text(f"Rows: {rows:,} in common, without decoys: every feature holder knows who is a customer", "yellow")
    return Text(f"Rows: {rows:,}, matched by ids in the open")


def _encryption_line(encryption: Summary) -> Text:
    if not encryption["enabled"]:
        return Text("NOT ENCRYPTED: every value crossed in the clear", style="bold white on red")
    text = f"Encrypted: {encryption['scheme']} ({encryption['profile']}), {encryption['security_bits']}-bit security"
    return Text(text, style="green")


def _of(spent: float, cap: float | None) -> str:
    return f"{spent:.0f} (caps off)" if cap is None else f"{spent:.0f} of {cap:.0f}"


def _measured(label: str, measures: Mapping[str, float] | None, *, main: bool = False) -> Row:
    """A row of ``summary.metrics``."""
    return Row(label, None, None, main) if measures is None else Row(label, measures["auc"], measures["ks"], main)


def _scorecard_rows(summary: Summary) -> Iterable[Row]:
    metrics = summary["metrics"]
    names = ", ".join(_holders(summary))
    return (
        _measured(f"{summary['bank']} alone", metrics["alone"]),
        _measured(f"federated with {names}", metrics["federated"], main=True),
        _measured("pooled plaintext, the same steps", metrics["pooled_plaintext"]),
        _measured("pooled plaintext, scikit-learn", metrics["reference"]),
    )


def _scorecard_notes(summary: Summary) -> Iterable[Text]:
    left_out = summary["fit"]["features_beyond_ledgers"]
    if left_out:
        text = f"{left_out} features were left out because the ledgers allow no more; the report names them"
        yield Text(text, style="yellow")


def _boost_rows(summary: Summary) -> Iterable[Row]:
    metrics, names = summary["metrics"], ", ".join(_holders(summary))
    protected = summary["boost"]["noise_rows"] > 0 or summary["boost"]["thresholds_cap"] is not None
    return (
        _measured(f"{summary['bank']} alone", metrics["alone"]),
        _measured(f"federated with {names}", metrics["federated"], main=True),
        _measured("pooled plaintext, the same steps", metrics["pooled_plaintext"]),
        *([_measured("pooled plaintext, no noise, no caps", metrics["unprotected"])] if protected else []),
        _measured("pooled plaintext, XGBoost", metrics["reference"]),
    )


def _boost_notes(summary: Summary) -> Iterable[Text]:
    boost = summary["boost"]
    told = ", ".join(f"{party} {count}" for party, count in boost["thresholds_disclosed"].items())
    trees = f"{boost['trees']} trees" + (" (stopped early)" if boost["stopped_early"] else "")
    size = f"{boost['bytes_per_tree'] / 1e6:.1f} MB a tree"
    yield Text(f"{trees}, {boost['splits']} distinct splits, {size}; thresholds disclosed: {told}")
    if not boost["noise_rows"] or boost["thresholds_cap"] is None:
        off = " and ".join(
            text
            for text, missing in (
                ("no holder noise", not boost["noise_rows"]),
                ("no cap on thresholds", boost["thresholds_cap"] is None),
            )
            if missing
        )
        yield Text(f"PROTECTION OFF: {off}; for public data only", style="bold white on red")


def _holders(summary: Summary) -> list[str]:
    return [party for party, role in summary["parties"].items() if role != "label_holder"]


VIEWS: Mapping[str, View] = MappingProxyType(
    {
        "scorecard": View("scorecard", _scorecard_rows, _scorecard_notes),
        "boost": View("trees", _boost_rows, _boost_notes),
    }
)
"""How runs are printed, by ``model`` of the summary."""

"""The last words of a run of averaging on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout

__all__ = ["show_averaged"]

_MODELS = (
    ("alone", "each bank alone"),
    ("federated", "averaged"),
    ("personal", "averaged, then made its own"),
    ("pooled_plaintext", "all rows in one place"),
)


def show_averaged(summary: Mapping[str, Any], report: Path) -> None:
    """Prints the end of a run.

    Args:
        summary: Content of ``summary.json``.
        report: Where the report is.
    """
    console = stdout()
    banks, rounds = len(summary["members"]), summary["rounds"]
    title = f"{summary['name']}: {banks} banks, {summary['rows_test']:,} held-out rows"
    table = Table(title=title, min_width=len(title))
    table.add_column("network")
    table.add_column("mean AUC", justify="right")
    for key, name in _MODELS:
        found = summary["metrics"][key]["auc"]
        if found is not None:
            table.add_row(name, f"{found:.4f}", style="bold" if key == "federated" else "")
    console.print(table)
    seen = "nothing but sums is opened, and by banks only"
    if summary["secure_sum"]["profile"] == "masked":
        seen = "the coordinator sees sums, and nobody anything else"
    console.print(Text(f"Secure sums ({summary['secure_sum']['profile']}): {seen}", style="green"))
    same = summary["model_equals_plain_sums"]
    if same is not None:
        text = "the same model as adding in the clear" if same else "NOT the model of adding in the clear"
        console.print(Text(f"{text[:1].upper()}{text[1:]}", style="green" if same else "bold white on red"))
    console.print(_privacy(summary["differential_privacy"]), soft_wrap=True)
    for one in summary["lost"]:
        text = f"Left out at step {one['step']}: {one['party']}: {one['text']} [{one['code']}]"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    carried = "Flower" if summary["engine"] == "flower" else "this process"
    said = f"{rounds['played']} rounds carried by {carried}, model of round {rounds['best']}"
    console.print(f"{said}, {summary['parameters']:,} parameters", soft_wrap=True)
    console.print(f"{summary['seconds']['total']:.1f} s, {summary['max_rss_mb']:.0f} MB", soft_wrap=True)
    console.print(f"Report: {report}", soft_wrap=True)


def _privacy(spent: Mapping[str, Any] | None) -> Text:
    """What the released model may say of one unit."""
    if spent is None or spent["unit"] == "none" or spent["epsilon"] is None:
        return Text("No differential privacy: the model itself may give away rows", style="yellow")
    epsilon, delta = spent["epsilon"], spent["delta"]
    limit = "" if spent["max_epsilon"] is None else f", limit {spent['max_epsilon']:g}"
    return Text(f"Differential privacy for each {spent['unit']}: epsilon {epsilon:.2f} at delta {delta:g}{limit}")

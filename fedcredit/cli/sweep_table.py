"""The last words of a sweep on the terminal: its combinations, the best first, and how far to trust the order."""

from __future__ import annotations

import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout
from fedcredit.report.words import count, decimals, duration, figures, signed
from fedcredit.runtime.sweep.compare import Against
from fedcredit.runtime.sweep.results import Combination
from fedcredit.runtime.sweep.study import Study

__all__ = ["show_sweep"]

_MOST = 25
_WIDTH = 14  # of a bar, in characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_ROOM = 100  # columns of a terminal that leave room for bars
_PIPE = 4096


def show_sweep(study: Study, folder: Path, page: Path) -> None:
    """Prints the end of a sweep.

    Args:
        study: The sweep.
        folder: Where its runs and tables are.
        page: Where its page is.
    """
    console = stdout()
    if not console.is_terminal:
        console.width = _PIPE
    if study.best is not None:
        console.print(_table(study, bars=console.is_terminal and console.width >= _ROOM))
    for status, error, names in study.problems[:_MOST]:
        text = Text(f"{status} ", style="bold red" if status == "failed" else "yellow")
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.print(text.append(f"{names[0]}{more}: {error}", style="default"), soft_wrap=True)
    if len(study.problems) > _MOST:
        console.print(f"… and {len(study.problems) - _MOST} other reasons, in results.csv", soft_wrap=True)
    plain = sum(not one.summary.get("encryption", {}).get("enabled", True) for one in study.done)
    if plain:
        said = f"NOT ENCRYPTED: in {plain} of {len(study.done)} runs every value crossed in the clear"
        console.print(Text(said, style="bold white on red"), soft_wrap=True)
    for line in _reading(study):
        console.print(line, soft_wrap=True)
    console.print(f"Runs and tables: {folder}", soft_wrap=True)
    console.print(f"Page: {page}", soft_wrap=True)


def _table(study: Study, *, bars: bool) -> Table:
    by, repeated = study.metric, bool(study.plan.seeds)
    runs = f"{len(study.done)} of {len(study.ended)} runs" if study.missing else f"{len(study.ended)} runs"
    table = Table(
        title=f"{study.plan.title}: {runs} by {by.name}, {by.direction}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for varied in study.plan.varied:
        numbers = study.rows[varied.key].dtype.is_numeric()
        table.add_column(varied.label, justify="right" if numbers else "left", no_wrap=True)
    table.add_column(by.name, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    if repeated:
        table.add_column("sd", justify="right", no_wrap=True)
    table.add_column("against the best", justify="right", no_wrap=True)
    for other in study.others:
        table.add_column(other.name, justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    shown = [pair for pair in study.ranked if pair[0].found]
    means = [one.mean for one, _ in shown]
    for one, against in shown[:_MOST]:
        cells = [Text(value) for value in one.values]
        cells.append(Text(_number(one.mean) + ("*" if one.problem else "")))
        cells += [Text(_bar(one.mean, means, higher=by.higher), style="cyan")] if bars else []
        cells += [Text(_number(one.spread))] if repeated else []
        cells.append(_against(one, against, study))
        cells += [Text(_number(one.mean_of(other.name))) for other in study.others]
        cells.append(Text(decimals(one.mean_of("seconds.total"), 1)))
        table.add_row(*cells, style="bold" if one is study.best else "")
    if len(shown) > _MOST:
        table.caption, table.caption_justify = f"… {len(shown) - _MOST} more in results.csv", "left"
    return table


def _number(value: float | None) -> str:
    """Four decimals up to ten, four figures beyond; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    return decimals(value, 4) if abs(value) < 10 else figures(value, 4)


def _against(one: Combination, against: Against | None, study: Study) -> Text:
    if one is study.best:
        return Text("best")
    if against is None:
        return Text("–")
    difference = signed(against.difference, 4)
    if against.margin is None:
        return Text(difference)
    text = Text(f"{difference} ±{decimals(against.margin, 4)}", style="dim" if not against.tied else "")
    return text.append(" ≈" if against.tied else "  ")


def _bar(value: float, all_values: list[float], *, higher: bool) -> str:
    """Length by rank of the value between the worst, a sliver, and the best, the full width."""
    low, high = min(all_values), max(all_values)
    share = 1.0 if high == low else (value - low) / (high - low)
    share = share if higher else 1.0 - share
    eighths = max(1, round(share * _WIDTH * 8))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _reading(study: Study) -> list[Text]:
    """How far to trust the order."""
    lines = []
    if any(one.problem and one.found for one in study.combinations):
        lines.append(Text("* without the runs that are missing", style="yellow"))
    if study.tied:
        many = "combination" if study.tied == 1 else "combinations"
        lines.append(
            Text(f"≈ {study.tied} other {many} cannot be told from the best (95 % interval of the difference)")
        )
    rows, bads = study.figure("rows_test"), study.figure("positives_test")
    compared = sum(bool(one.found) for one in study.combinations)
    if compared > 1:
        where = f"the same {count(rows)} held-out rows" if rows is not None else "held-out rows"
        where += f" ({count(bads)} bad)" if rows is not None and bads is not None else ""
        lines.append(
            Text(f"The best of {compared} was chosen on {where}: its figure flatters it; confirm it on other rows")
        )
    spent = sum(one.summary.get("seconds", {}).get("total") or 0.0 for one in study.done)
    if spent:
        lines.append(Text(f"{duration(spent)} of computing in all runs"))
    return lines

"""What commands write: text for people, JSON for programs, errors as one line. Colours only on a terminal.

What others have written is shown, never obeyed: see `fedcredit.plain_text`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcredit.plain_text import plain

__all__ = ["stderr", "stdout", "write_error", "write_json", "write_line", "write_notice", "write_table", "write_text"]


_UNBOUND = 4096  # columns


def stdout() -> Console:
    """Console on standard output; plain when that is no terminal or NO_COLOR is set."""
    return Console(file=sys.stdout, highlight=False, markup=False)


def stderr() -> Console:
    """Console on standard error, for errors and progress."""
    return Console(file=sys.stderr, highlight=False, markup=False)


def write_line(text: str, *, style: str = "") -> None:
    """One line for a person, never wrapped, so that it can be searched and copied."""
    stdout().print(Text(plain(text), style=style), soft_wrap=True)


def write_error(text: str) -> None:
    """One line on standard error, red on a terminal."""
    console = stderr()
    line = Text("error: ", style="bold red")
    # an error is one line whatever a file name or a peer put into it
    line.append(plain(" ".join(text.split())), style="default")
    console.print(line, soft_wrap=True)


def write_notice(text: str) -> None:
    """One line on standard error about something that is no error, yellow on a terminal."""
    line = Text("note: ", style="bold yellow")
    line.append(plain(" ".join(text.split())), style="default")
    stderr().print(line, soft_wrap=True)


def write_text(text: str) -> None:
    """Text exactly as it is, for output that is a file format."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def write_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """JSON on standard output; ASCII, so that any terminal and pipe takes it."""
    write_text(json.dumps(value, indent=2, allow_nan=False))


def write_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table; full width when it is not a terminal, so that nothing is cut."""
    table = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console = stdout()
    if not console.is_terminal:
        console.width = _UNBOUND  # a pipe has no width: nothing is folded
    console.print(table)

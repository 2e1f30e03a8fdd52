"""``fedcredit doctor``: is everything right before a run?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout, write_json, write_line
from fedcredit.runtime.doctor.checks import Finding, Status, findings_of, opened, worst
from fedcredit.runtime.doctor.house import check_certificates, check_data, check_folders, check_policy
from fedcredit.runtime.doctor.machine import (
    check_disk,
    check_environment,
    check_local_clock,
    check_packages,
    check_ports,
    check_proxy,
    check_python,
    check_sqlite,
)
from fedcredit.runtime.doctor.network import check_line
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind

__all__ = ["examine", "register"]

_SIGNS: Final = {
    Status.OK: ("ok", "green"),
    Status.WARN: ("warn", "yellow"),
    Status.FAIL: ("FAIL", "bold red"),
    Status.UNCHECKED: ("not checked", "dim"),
}
_WIDE = 4096  # columns of what is no terminal: nothing is folded
_HOME = "FEDCREDIT_HOME"


def register(app: typer.Typer) -> None:
    """Add ``doctor`` to the program."""
    app.command("doctor", epilog="Example: fedcredit doctor --home /var/lib/fedcredit --json")(_doctor)


def _doctor(
    home: Annotated[
        Path | None, typer.Option("--home", help=f"A member's home; default: {_HOME}, else only the machine.")
    ] = None,
    offline: Annotated[  # noqa: FBT002 -- typer reads the default of a flag
        bool, typer.Option("--offline", help="Do not connect to the coordinator.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 -- as above
) -> int:
    """Check machine, clock, certificates, lines, records and policy; exit 2 if one of them fails."""
    folder = home or (Path(os.environ[_HOME]) if os.environ.get(_HOME) else None)
    findings = examine(folder, offline=offline)
    status = worst(findings)
    if json:
        rows = [
            {"check": one.check, "status": one.status.value, "found": one.found, "remedy": one.remedy}
            for one in findings
        ]
        write_json({"status": status.value, "home": str(folder) if folder else None, "checks": rows})
    else:
        _show(findings)
    return 2 if status is Status.FAIL else 0


def examine(folder: Path | None, *, offline: bool = False) -> list[Finding]:
    """All checks, in the order they are shown.

    Args:
        folder: A member's home; None = the machine alone.
        offline: Leaves out what connects to the coordinator.
    """
    home, finding = opened(folder) if folder is not None else (None, None)
    kind = home.kind if home is not None else None
    found = [check_python(), *findings_of("packages", lambda: check_packages(kind)), check_environment()]
    found += findings_of("clock", lambda: check_local_clock(folder))
    if finding is None:
        return found
    found.append(finding)
    if home is None:
        left_out = "certificate, folders, disk, sqlite, ports, lines, data and policy"
        found.append(Finding("the rest", Status.UNCHECKED, left_out, "first mend the home"))
        return found
    for check, work in _of_home(home, offline=offline):
        found += findings_of(check, work)
    return found


def _of_home(home: Home, *, offline: bool) -> Sequence[tuple[str, Callable[[], Finding | Iterable[Finding]]]]:
    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("certificate", lambda: check_certificates(home)),
        ("folders", lambda: check_folders(home)),
        ("disk", lambda: check_disk(home.state)),
        ("sqlite", lambda: check_sqlite(home.state)),
        ("ports", lambda: check_ports(home)),
    ]
    if offline:
        checks.append(("lines", lambda: Finding("lines", Status.UNCHECKED, "left out by --offline")))
    else:
        checks.append(("lines", lambda: check_line(home)))
    if home.kind is MemberKind.COORDINATOR:
        checks.append(("proxy", lambda: check_proxy(home)))
    if home.kind is MemberKind.NODE:
        checks += [("data", lambda: check_data(home)), ("policy", lambda: check_policy(home))]
    return checks


def _show(findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=True)
    table.add_column("", no_wrap=True)
    table.add_column("CHECK", no_wrap=True)
    table.add_column("FOUND")
    for one in findings:
        sign, style = _SIGNS[one.status]
        text = Text(one.found)
        if one.remedy and one.status is not Status.OK:
            text.append(f"\n→ {one.remedy}", style="bold" if one.status is Status.FAIL else "")
        table.add_row(Text(sign, style=style), one.check, text)
    console = stdout()
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)
    counts = {status: sum(one.status is status for one in findings) for status in Status}
    style = _SIGNS[worst(findings)][1]
    write_line("")
    write_line(", ".join(f"{count} {status.value}" for status, count in counts.items() if count), style=style)

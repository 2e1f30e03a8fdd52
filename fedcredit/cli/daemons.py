"""What ``fedcredit-node`` and ``fedcredit-coordinator`` share: options, starting and stopping, how a state is shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

import fedcredit
from fedcredit.cli.console import write_error, write_json, write_line, write_table, write_text
from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.daemon.main import QUIET
from fedcredit.runtime.daemon.process import STATUS_FILE, detach, running_pid, stop_daemon
from fedcredit.runtime.daemon.status import CoordinatorStatus, NodeStatus, ProcessView, read_status
from fedcredit.runtime.house.home import home_kind
from fedcredit.runtime.house.roster import MemberKind

__all__ = [
    "HomeOption",
    "JsonFlag",
    "QuietFlag",
    "WaitOption",
    "checked_home",
    "days",
    "own_status",
    "run_foreground",
    "run_program",
    "short_time",
    "show_daemon",
    "show_processes",
    "start_background",
    "stop_background",
]

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="FEDCREDIT_HOME", help="The member's home.", show_envvar=True)
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Log to HOME/logs only, not to standard error.")]
WaitOption = Annotated[float, typer.Option("--wait", metavar="SECONDS", help="Longest wait until it is ready.")]

_EXIT_USAGE, _EXIT_INTERRUPTED = 2, 130
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]  # click's own, as in fedcredit.cli
_SOON = 30.0  # days; certificates with fewer left are renewed by the next `fedcredit provision`

T = TypeVar("T", CoordinatorStatus, NodeStatus)


def run_program(app: typer.Typer, name: str, arguments: Sequence[str] | None) -> int:
    """Runs a program of commands; errors are one line on standard error.

    Returns:
        The exit code: 0 done, 2 wrong input, 3 failed, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        write_text(f"{name} {fedcredit.__version__}")
        return 0
    try:
        code = app(given, prog_name=name, standalone_mode=False)
    except FedCreditError as error:
        write_error(str(error))
        return error.exit_code
    except _CommandLineError as error:
        message = getattr(error, "format_message", str)()
        if message:
            write_error(f"{' '.join(message.split())} (see {name} --help)")
        return _EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        write_error("interrupted")
        return _EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def checked_home(home: Path, kind: MemberKind) -> Path:
    """The home as an absolute path.

    Raises:
        SpecError: it is none, or that of another kind of member.
    """
    found = home_kind(home)
    if found is not kind:
        raise SpecError("home.kind", f"{home}: the home of {_a(found)}; give that of {_a(kind)}")
    return home.resolve()


def _a(kind: MemberKind) -> str:
    return {MemberKind.NODE: "a node", MemberKind.COORDINATOR: "the coordinator"}.get(kind, "an operator")


def run_foreground(module: str, home: Path, *, quiet: bool) -> None:
    """Becomes the daemon: this process is replaced by one without the commands."""
    arguments = [sys.executable, "-m", module, str(home), *([QUIET] if quiet else [])]
    os.execv(sys.executable, arguments)  # noqa: S606 -- this program's own interpreter and module


def start_background(module: str, home: Path, kind: type[T], wait: float, *, json: bool) -> None:
    """Starts the daemon and waits until it is ready.

    Raises:
        FedCreditError: it ended, or is not ready in time.
    """
    path = home / "state" / STATUS_FILE

    def missing(pid: int) -> str | None:
        status = read_status(path, kind)
        return status.missing if status is not None and status.pid == pid else None

    pid = detach((sys.executable, "-m", module, str(home), QUIET), home, missing, wait)
    if json:
        write_json({"home": str(home), "pid": pid, "ready": True})
    else:
        write_line(f"ready: process {pid}, log {home / 'logs' / 'daemon.jsonl'}", style="green")


def stop_background(home: Path, *, json: bool) -> None:
    """Stops the daemon.

    Raises:
        TransportError: it does not end in time.
    """
    pid = stop_daemon(home)
    if json:
        write_json({"home": str(home), "pid": pid, "stopped": pid is not None})
    else:
        write_line("it was not running" if pid is None else f"stopped: process {pid}")


def own_status(home: Path, kind: type[T]) -> T:
    """What the running daemon of a home tells.

    Raises:
        TransportError: none runs, or it has told nothing yet.
    """
    pid = running_pid(home / "state")
    status = read_status(home / "state" / STATUS_FILE, kind)
    if pid is None:
        raise TransportError("daemon.down", f"{home}: its daemon does not run; `start` starts it")
    if status is None or status.pid != pid:
        raise TransportError("daemon.starting", f"{home}: its daemon, process {pid}, is starting; ask again")
    return status


def show_daemon(status: CoordinatorStatus | NodeStatus, rows: Mapping[str, str]) -> None:
    """The first lines of a status."""
    ready = not status.missing
    write_line(f"{status.party} of {status.consortium}: {'ready' if ready else 'NOT READY'}", style=_colour(ready))
    left = days(status.certificate_seconds)
    facts = {
        **({} if ready else {"missing": status.missing}),
        "process": f"{status.pid}, since {short_time(status.started)}, version {status.version}",
        "roster": f"version {status.roster_version}, {status.roster_digest[:16]}…",
        "certificate": f"{left:.0f} days left" + ("; renew it" if left < _SOON else ""),
        **({"notice": status.notice} if status.notice else {}),
        **rows,
    }
    width = max(map(len, facts)) + 2
    for name, text in facts.items():
        write_line(
            f"  {name:<{width}}{text}", style="yellow" if name in {"missing", "notice"} or "renew it" in text else ""
        )


def _colour(ready: bool) -> str:  # noqa: FBT001 -- one word for one fact
    return "bold green" if ready else "bold red"


def show_processes(processes: Sequence[ProcessView]) -> None:
    """Supervised processes as a table."""
    rows = [
        (one.name, "runs" if one.running else "DOWN", short_time(one.since), str(one.restarts)) for one in processes
    ]
    write_line("")
    write_table(("PROCESS", "STATE", "SINCE", "RESTARTS"), rows)


def days(seconds: float) -> float:
    """Days, from seconds."""
    return seconds / 86400.0


def short_time(text: str) -> str:
    """A moment for people: the time of day where it is today (UTC), else the date too."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    today = moment.date() == datetime.now(UTC).date()
    return f"{moment:%H:%M:%S}Z" if today else f"{moment:%Y-%m-%d %H:%M}Z"

"""``fedcredit-coordinator``: start, serve, status, stop; request and pin for its keys and roster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fedcredit.cli.console import write_json, write_line, write_table
from fedcredit.cli.daemons import (
    HomeOption,
    JsonFlag,
    QuietFlag,
    WaitOption,
    checked_home,
    own_status,
    run_foreground,
    run_program,
    short_time,
    show_daemon,
    show_processes,
    start_background,
    stop_background,
)
from fedcredit.cli.provision import write_pinned, write_request
from fedcredit.runtime.daemon.status import CoordinatorStatus
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.types import COORDINATOR

__all__ = ["app", "main"]

_MODULE = "coordinator.daemon"
_MB = 1_000_000

_EPILOG = """Examples:

fedcredit-coordinator start --home ~/coordinator

FEDCREDIT_HOME=~/coordinator fedcredit-coordinator status

Exit codes: 0 done; 2 a home, settings or a command line that are wrong; 3 it does not run, or not as it should."""

app = typer.Typer(
    name="fedcredit-coordinator",
    help="Relay sealed messages between the nodes of a consortium, and carry its runs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("start", epilog="Example: fedcredit-coordinator start --home ~/coordinator --wait 120")
def _start(
    home: HomeOption,
    wait: WaitOption = 90.0,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Start the coordinator in the background; return when it is ready to carry runs.

    Exchange and operators' interface share one port; SuperLink, SuperExec and
    proxy are started with it and kept up.
    """
    start_background(_MODULE, checked_home(home, MemberKind.COORDINATOR), CoordinatorStatus, wait, json=json)


@app.command("serve", epilog="Example: fedcredit-coordinator serve --home /var/lib/fedcredit")
def _serve(
    home: HomeOption,
    quiet: QuietFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """The same in the foreground, for systemd and containers; SIGTERM ends it within ten seconds."""
    run_foreground(_MODULE, checked_home(home, MemberKind.COORDINATOR), quiet=quiet)


@app.command("status", epilog="Example: fedcredit-coordinator status --json")
def _status(
    home: HomeOption,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Say what runs, who is connected since when, runs by state, days of the certificate; exit 3 if it does not run."""
    status = own_status(checked_home(home, MemberKind.COORDINATOR), CoordinatorStatus)
    if json:
        write_json(msgspec.to_builtins(status))
        return
    counts, refused = status.exchange, sum(status.exchange.refused.values())
    runs = ", ".join(f"{count} {state}" for state, count in sorted(status.runs.items())) or "none yet"
    relayed = f"{counts.received_bytes / _MB:.1f} MB in, {counts.sent_bytes / _MB:.1f} MB out"
    facts = {
        "exchange": f"{status.address}, {counts.runs} runs open, {counts.queue_bytes / _MB:.1f} MB queued",
        "relayed": f"{relayed}, {counts.reconnects} reconnects",
        "refused": f"{refused} streams, {status.operators_refused} operators' calls",
        "runs": runs,
        "nodes": ", ".join(f"{one} (away)" if one in (status.away or ()) else one for one in status.nodes),
    }
    show_daemon(status, facts)
    show_processes(status.processes)
    if status.parties:
        rows = [
            (one.run[:12], one.party, "connected" if one.connected else "AWAY", short_time(one.since))
            for one in status.parties
        ]
        write_line("")
        write_table(("RUN", "PARTY", "EXCHANGE", "SINCE"), rows)


@app.command("stop", epilog="Example: fedcredit-coordinator stop --home ~/coordinator")
def _stop(
    home: HomeOption,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Stop the daemon; runs that are under way go on when it is started again."""
    stop_background(checked_home(home, MemberKind.COORDINATOR), json=json)


@app.command("request", epilog="Example: fedcredit-coordinator request --out ~/coordinator")
def _request(
    out: Annotated[Path, typer.Option("--out", help="Its home; the keys are made here and stay here.")],
    rotate: Annotated[bool, typer.Option("--rotate", help="Make new keys, to replace those in force.")] = False,  # noqa: FBT002
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Make the coordinator's keys here, and the request for `fedcredit provision`."""
    write_request(COORDINATOR, MemberKind.COORDINATOR, out, rotate=rotate, json=json)


@app.command("pin", epilog='Example: fedcredit-coordinator pin bundle --home ~/coordinator --fingerprint "59214 …"')
def _pin(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `fedcredit provision` wrote.")],
    home: HomeOption,
    expected: Annotated[str | None, typer.Option("--fingerprint", help="The consortium's, compared first.")] = None,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check a bundle and take it into the home; a running daemon takes it within seconds.

    Who was revoked is cut off at once, and its runs stop; all others go on.
    """
    write_pinned(bundle, home, expected, json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_program(app, "fedcredit-coordinator", arguments)


if __name__ == "__main__":
    sys.exit(main())

"""``fedcredit-node``: start, serve, status, approve, deny, stop; request and pin for its keys and roster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from fedcredit.cli.console import write_json, write_line, write_notice, write_table
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
from fedcredit.errors import SpecError, TransportError
from fedcredit.governance.policy import load_policy
from fedcredit.runtime.daemon.status import LedgerView, NodeStatus, SuperLinkView
from fedcredit.runtime.daemon.tally import ledger_use, run_stage
from fedcredit.runtime.house.consent import (
    Known,
    ProposalView,
    approve,
    deny,
    find_proposal,
    known_runs,
    run_policy,
    view_of,
)
from fedcredit.runtime.house.facts import Fact, house_facts
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.people import this_person
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.session.session import STOP_FILE
from fedcredit.spec.travel import read_travelling

__all__ = ["app", "main"]

_MODULE = "nodes.daemon"
_SHOWN, _DIGITS = 12, 8  # hex digits of a run's name, and of a digest in the table
_MOST = 15  # runs in the table

_EPILOG = """Examples:

fedcredit-node start --home ~/bank

fedcredit-node status --home ~/bank

fedcredit-node approve 5f2a81c0 --home ~/bank

Exit codes: 0 done; 2 a home, settings or a command line that are wrong; 3 it does not run, or not as it should."""

app = typer.Typer(
    name="fedcredit-node",
    help="Take part in a consortium's runs: records stay in this house, its people decide.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Which = Annotated[
    str, typer.Argument(metavar="RUN|DIGEST", help="Run or spec digest, as `status` shows it; 8 digits will do.")
]
_Name = Annotated[str, typer.Option("--name", metavar="TEXT", help="Who you are, for the record.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("start", epilog="Example: fedcredit-node start --home ~/bank --wait 120")
def _start(
    home: HomeOption,
    wait: WaitOption = 90.0,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Start the node in the background; return when the exchange answers and Flower's processes run.

    It dials out only. Runs that were under way go on from their checkpoints.
    """
    start_background(_MODULE, checked_home(home, MemberKind.NODE), NodeStatus, wait, json=json)


@app.command("serve", epilog="Example: fedcredit-node serve --home /var/lib/fedcredit")
def _serve(
    home: HomeOption,
    quiet: QuietFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """The same in the foreground, for systemd and containers; SIGTERM ends it within ten seconds."""
    run_foreground(_MODULE, checked_home(home, MemberKind.NODE), quiet=quiet)


@app.command("status", epilog="Example: fedcredit-node status --json")
def _status(
    home: HomeOption,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Say whether it is connected, which runs wait for a decision or go on, what the ledger leaves.

    Runs and the ledger are shown also while it does not run; exit code 3 then.
    """
    folder = checked_home(home, MemberKind.NODE)
    opened = open_home(folder)
    runs, ledger = known_runs(opened), ledger_use(folder)
    status, down = None, None
    try:
        status = own_status(folder, NodeStatus)
    except TransportError as error:
        down = error
    if json:
        write_json(
            {
                "daemon": None if status is None else msgspec.to_builtins(status),
                "runs": [_run_json(folder, one) for one in runs],
                "ledger": [{**msgspec.to_builtins(one), "share": one.share} for one in ledger],
            }
        )
    else:
        _show_status(folder, status, runs, ledger)
    if down is not None:
        raise down


def _run_json(home: Path, view: ProposalView) -> dict[str, Any]:
    stage = run_stage(home, view.known.run) if view.state == "running" else ""
    people = {"approved_by": list(view.people), "approvals_needed": view.needed}
    return {**msgspec.to_builtins(view.known), "state": view.state, "stage": stage, **people}


def _show_status(home: Path, status: NodeStatus | None, runs: list[ProposalView], ledger: list[LedgerView]) -> None:
    if status is not None:
        since = short_time(status.exchange.since)
        reached = "connected" if status.exchange.reachable else "NOT CONNECTED"
        facts = {"exchange": f"{status.exchange.address}, {reached} since {since}"}
        show_daemon(status, facts | _superlink(status.superlink))
        show_processes(status.processes)
    write_line("")
    if runs:
        rows = [_run_row(home, one) for one in runs[:_MOST]]
        write_table(("RUN", "NAME", "MODEL", "ROWS", "STATE", "STAGE", "PROPOSED", "DIGEST"), rows)
        if len(runs) > _MOST:
            write_line(f"and {len(runs) - _MOST} older ones; --json shows all")
    else:
        write_line("no run has been proposed to this house")
    waiting = [one for one in runs if one.state == "pending"]
    if waiting:
        write_notice(
            f"{len(waiting)} wait for a decision; look at one: fedcredit-node approve {waiting[0].known.run[:_SHOWN]}"
        )
    if ledger:
        write_line("")
        write_table(("TOLD TO", "ACCOUNT", "USED", "CAP", "LEFT"), [_ledger_row(one) for one in ledger])


def _superlink(view: SuperLinkView) -> dict[str, str]:
    """Whether the SuperLink has let this house's SuperNode in, and what to do where it has not."""
    why, _, right = view.why.partition("; ")
    if view.state == "unknown":
        return {"SuperLink": "not known"}
    if view.state == "connected":
        return {"SuperLink": f"connected since {short_time(view.since)}"}
    away = f"AWAY since {short_time(view.since)}" if view.since else "AWAY"
    return {"SuperLink": f"refused: {why}" if view.state == "refused" else f"{away}: {why}", "to do": right}


def _run_row(home: Path, view: ProposalView) -> tuple[str, ...]:
    known = view.known
    stage = run_stage(home, known.run) if view.state == "running" else ""
    made, digest = short_time(known.made), known.spec_digest[:_DIGITS]
    state = (
        f"{view.state} {len(view.people)}/{view.needed}" if view.state == "pending" and view.needed > 1 else view.state
    )
    return (known.run[:_SHOWN], known.name, known.model, known.align, state, stage, made, digest)


def _ledger_row(view: LedgerView) -> tuple[str, ...]:
    share = view.share
    cap = "not enforced" if view.cap is None else f"{view.cap:,.10g}"
    left = "" if share is None else f"{100 * max(0.0, 1 - share):.0f} %"
    return (view.counterparty, view.account.replace("_", " "), f"{view.used:,.10g}", cap, left)


@app.command("approve", epilog="Example: fedcredit-node approve 5f2a81c0 --home ~/bank --yes")
def _approve(
    which: _Which,
    home: HomeOption,
    name: _Name = "",
    yes: _Yes = False,  # noqa: FBT002 -- typer reads the default of a flag
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Show what a run asks of this house, and approve it; also takes back a `stop` of it.

    Where policy.toml says approvals = 2, the run starts when two different system users have.
    """
    asked, person = _asked(home, which), this_person(name)
    _show_asked(asked, json=json)
    _confirm("Take part in this run?", yes=yes)
    known = approve(asked.home, asked.known.run, person)  # what was shown, whatever has been proposed since
    (asked.home.state / "runs" / known.run / STOP_FILE).unlink(missing_ok=True)
    _say_decided(asked.home, known, "approved", json=json)


@app.command("deny", epilog="Example: fedcredit-node deny 5f2a81c0 --home ~/bank --yes")
def _deny(
    which: _Which,
    home: HomeOption,
    name: _Name = "",
    yes: _Yes = False,  # noqa: FBT002 -- typer reads the default of a flag
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Show what a run asks of this house, and deny it, for which one suffices; what has started is left by `stop`."""
    asked, person = _asked(home, which), this_person(name)
    _show_asked(asked, json=json)
    _confirm("Deny this run?", yes=yes)
    _say_decided(asked.home, deny(asked.home, asked.known.run, person), "denied", json=json)


@dataclass(frozen=True)
class _Asked:
    """A proposed run beside what this house makes of it."""

    home: Home
    known: Known
    facts: list[Fact]


def _asked(home: Path, which: str) -> _Asked:
    opened = open_home(checked_home(home, MemberKind.NODE))
    known = find_proposal(opened, which)
    facts = {
        "run": known.run,
        "name": f"{known.name} ({known.model}, {known.mode})",
        "spec digest": known.spec_digest,
        "parties": ", ".join(known.parties),
        "records": f"[data.{known.data}] of this house",
        "own columns": ", ".join(known.columns)
        or f"all {'features of the catalogue' if known.as_of else 'columns of the source'}",
    }
    shown = [Fact(name, text) for name, text in facts.items()]
    shown += [*_protection(opened, known), Fact("proposed", short_time(known.made))]
    shown.append(Fact("expires", short_time(known.expires)))
    if known.continues:
        shown.append(Fact("continues", f"{known.continues}, without a party that is missing"))
    return _Asked(opened, known, shown)


def _protection(home: Home, known: Known) -> list[Fact]:
    """How rows are found, encryption, noise and caps that the run would have in this house."""
    text = (home.state / "proposals" / f"{known.run}.spec.json").read_bytes()
    spec, data = read_travelling(text)
    policy = load_policy(home.policy)
    caps = run_policy(policy, spec, known.spec_digest).caps
    words = {
        "equations a feature": caps.equations,
        "bits a row": caps.row_bits,
        "bins returned": caps.bins_returned,
        "ids asked": caps.ids_asked,
    }
    stricter = [f"{name} {cap:g}" for name, cap in words.items() if cap is not None]
    enforced = policy.enforce or spec.privacy.enforce
    noise = f", noise {spec.privacy.noise_rows:g} rows" if spec.run.model == "boost" else ""
    own = ", ".join([*stricter, "else the ledger's own"]) if stricter else "the ledger's own"
    shown = own if enforced else "NOT ENFORCED: counted only"
    return [
        *house_facts(home, spec, data),
        *([] if spec.several_banks else [Fact("encryption", f"{spec.crypto.profile}{noise}")]),
        Fact("caps", shown, loud=not enforced),
    ]


def _show_asked(asked: _Asked, *, json: bool) -> None:
    """On standard output for people; on standard error beside JSON."""
    width = max(len(one.name) for one in asked.facts) + 2
    for one in asked.facts:
        line = f"{one.name:<{width}}{'WARNING: ' * one.loud}{one.text}"
        if json:
            write_notice(line)
        else:
            write_line(line, style="bold red" if one.loud else "")


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise SpecError("consent.ask", "nobody can be asked here: standard input is no terminal; decide with --yes")
    if not typer.confirm(question):
        raise typer.Abort


def _say_decided(home: Home, known: Known, word: str, *, json: bool) -> None:
    view = view_of(home, known)
    if json:
        approvals = {"approvals": len(view.people), "needed": view.needed}
        write_json({"run": known.run, "spec_digest": known.spec_digest, "decision": word, **approvals})
        return
    write_line(f"{word}: run {known.run[:_SHOWN]}", style="green" if word == "approved" else "yellow")
    if word == "approved" and len(view.people) < view.needed:
        who = ", ".join(one or "somebody" for one in view.people)
        write_notice(f"{len(view.people)} of {view.needed} so far ({who}); it waits for another system user's approve")


@app.command("stop", epilog="Examples: fedcredit-node stop 5f2a81c0; fedcredit-node stop all; fedcredit-node stop")
def _stop(
    home: HomeOption,
    which: Annotated[
        str | None, typer.Argument(metavar="[RUN|all]", help="Run to leave, or all; nothing = stop the daemon.")
    ] = None,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Leave a run, all runs, or stop the daemon.

    Leaving ends a run for everyone, or they go on without this house where the
    run allows it; `approve` takes it back before the run is resumed. Stopping
    the daemon leaves no run: they go on when it is started again.
    """
    folder = checked_home(home, MemberKind.NODE)
    if which is None:
        stop_background(folder, json=json)
        return
    left = _leave(folder, which)
    if json:
        write_json({"left": left})
    for run in () if json else left:
        write_line(f"leaves run {run[:_SHOWN]}", style="yellow")


def _leave(home: Path, which: str) -> list[str]:
    """Marks runs as left; their sessions see it within a second."""
    parent = home / "state" / "runs"
    under_way = sorted(one.name for one in parent.iterdir() if one.is_dir()) if parent.is_dir() else []
    found = under_way if which == "all" else [one for one in under_way if len(which) >= 4 and one.startswith(which)]
    if which != "all" and len(found) != 1:
        what = f"{len(found)} runs begin so" if found else "no such run goes on in this house"
        raise SpecError("stop.run", f"{which[:80]}: {what}; `fedcredit-node status` shows them")
    for run in found:
        (parent / run / STOP_FILE).touch(mode=0o600)
    return found


@app.command("request", epilog="Example: fedcredit-node request --name bank --out ~/bank")
def _request(
    name: Annotated[str, typer.Option("--name", help="This house's name in the consortium.")],
    out: Annotated[Path, typer.Option("--out", help="Its home; the keys are made here and stay here.")],
    rotate: Annotated[bool, typer.Option("--rotate", help="Make new keys, to replace those in force.")] = False,  # noqa: FBT002
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Make this house's keys here, and the request to send to the operator."""
    write_request(name, MemberKind.NODE, out, rotate=rotate, json=json)


@app.command("pin", epilog='Example: fedcredit-node pin bundle --home ~/bank --fingerprint "59214 38180 …"')
def _pin(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder from the operator.")],
    home: HomeOption,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", help="The consortium's, as the operator read it out.")
    ] = None,
    json: JsonFlag = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check a bundle and take it into this house's home; a running node takes it within seconds."""
    write_pinned(bundle, home, expected, json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_program(app, "fedcredit-node", arguments)


if __name__ == "__main__":
    sys.exit(main())

"""``fedcredit run``: submit, list, watch, stop, resume and fetch runs between institutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcredit.cli.console import write_json, write_line, write_table
from fedcredit.cli.run_watch import watch_run
from fedcredit.errors import SpecError
from fedcredit.runtime.exchange.environment import pin_tls13
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MEMBER_NAME, MemberKind
from fedcredit.runtime.runs.record import copy_finished, write_record
from fedcredit.shipped import named_file
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import load_spec
from fedcredit.spec.travel import read_travelling, travelling_json

if TYPE_CHECKING:
    from fedcredit.runtime.runs.operator_api import RunView
    from fedcredit.runtime.runs.operator_client import OperatorClient

__all__ = ["register"]

_Home = Annotated[Path, typer.Option("--home", envvar="FEDCREDIT_HOME", show_envvar=True, help="The operator's home.")]
_AnyHome = Annotated[
    Path, typer.Option("--home", envvar="FEDCREDIT_HOME", show_envvar=True, help="Home of an operator, or of a node.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Run = Annotated[str, typer.Argument(metavar="RUN", help="The run, or the beginning of its name.")]

_SHOWN = 12  # hex digits of a run's name
_CONFIG = "configs/simulations/demo.toml"


def register(app: typer.Typer) -> None:
    """Add ``run submit``, ``list``, ``watch``, ``stop``, ``resume`` and ``fetch`` to the program."""
    group = typer.Typer(no_args_is_help=True, help="Runs between institutions: submit, watch, stop, fetch.")
    group.command("submit", epilog=f"Example: fedcredit run submit {_CONFIG} --data loans --home ~/ops --watch")(
        _submit
    )
    group.command("list", epilog="Example: FEDCREDIT_HOME=~/ops fedcredit run list")(_list)
    group.command("watch", epilog="Example: fedcredit run watch 5f2a81c0 --home ~/ops")(_watch)
    group.command("stop", epilog="Example: fedcredit run stop 5f2a81c0 --reason 'wrong month' --home ~/ops")(_stop)
    group.command("resume", epilog="Example: fedcredit run resume 5f2a81c0 --home ~/ops --watch")(_resume)
    group.command("fetch", epilog="Example: fedcredit run fetch 5f2a81c0 --out runs/march --home ~/ops")(_fetch)
    app.add_typer(group, name="run")


def _submit(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Run configuration (TOML), or a shipped one's name.")
    ],
    data: Annotated[str, typer.Option("--data", metavar="NAME", help="Name of the records in every node.toml.")],
    home: _Home,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a key, such as split.seed=1.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch the run.")] = False,  # noqa: FBT002
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check a configuration and submit it as a run; every house is asked before anything starts.

    Only the specification travels. Sources, queries and paths stay here;
    each house reads its own records, those it has named NAME.
    """
    if MEMBER_NAME.fullmatch(data) is None:
        raise SpecError("submit.data", f"--data {data[:80]!r}: a name of records is 1 to 64 of a-z 0-9 _ -")
    spec = load_spec(named_file("simulations", config), overrides or ()).spec
    text, digest = travelling_json(spec, data), spec_digest(spec)
    travelled, _ = read_travelling(text, str(config))  # what the houses will read, under the same rules
    opened = _operator(home)
    for party in travelled.party:
        if opened.roster.member(party.name).kind is not MemberKind.NODE:
            raise SpecError("submit.party", f"{config}: party {party.name} is no node of {opened.roster.consortium}")
    with _client(opened) as client:
        run = client.submit(text, digest)
        if json and not watch:
            write_json(_view(run))
        elif not json:
            write_line(f"submitted: run {run.run}, spec {digest[:16]}…", style="green")
            if not watch:
                write_line(f"every house decides now; follow it: fedcredit run watch {run.run[:_SHOWN]} --home {home}")
        if watch:
            watch_run(client, run.run, json=json)


def _list(
    home: _Home,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="So many of the last runs.")] = 30,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """List the last runs, the newest first."""
    with _client(_operator(home)) as client:
        runs = list(reversed(client.runs(limit)))
    if json:
        write_json([_view(one) for one in runs])
        return
    rows = [
        (one.run[:_SHOWN], one.name, one.model, one.state, one.created[:16].replace("T", " "), one.detail)
        for one in runs
    ]
    if not rows:
        write_line("no run yet; submit one: fedcredit run submit CONFIG --data NAME")
        return
    write_table(("RUN", "NAME", "MODEL", "STATE", "SUBMITTED (UTC)", "DETAIL"), rows)


def _watch(
    run: _Run,
    home: _Home,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Follow a run to its end: live on a terminal, else a line for each event; --json prints one object a line.

    Exit 0 where it finished, 3 where it failed or was stopped. One that goes
    on without a missing party is followed. Ctrl-C ends the watching only.
    """
    with _client(_operator(home)) as client:
        watch_run(client, client.get(run).run, json=json)


def _stop(
    run: _Run,
    home: _Home,
    reason: Annotated[str, typer.Option("--reason", help="Why; every party is told.")] = "",
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Stop a run at every party; it can be resumed."""
    with _client(_operator(home)) as client:
        _say(client.stop(run, reason), json=json)


def _resume(
    run: _Run,
    home: _Home,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch the run.")] = False,  # noqa: FBT002
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Go on with a failed or stopped run, under its own name, where its parties' checkpoints are."""
    with _client(_operator(home)) as client:
        view = client.resume(run)
        if not (json and watch):
            _say(view, json=json)
        if watch:
            watch_run(client, view.run, json=json)


def _fetch(
    run: _Run,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to create.")],
    home: _AnyHome,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Copy what this member may have of a run into a folder.

    An operator gets the coordinator's record: specification, events, every
    party's signed outcome, published figures, heads of the audit logs. A node
    gets its own finished run directory. Signatures are checked.
    """
    opened = open_home(home)
    if opened.kind is MemberKind.NODE:
        found = copy_finished(opened, run, out)
    else:
        with _client(opened) as client:
            record = client.fetch(run)
            found = write_record(opened, record, list(client.all_events(record.run.run)), out)
    if json:
        write_json({"run": found, "out": str(out)})
    else:
        write_line(f"fetched run {found[:_SHOWN]} into {out}", style="green")


def _operator(home: Path) -> Home:
    opened = open_home(home)
    if opened.kind is not MemberKind.OPERATOR:
        raise SpecError("home.kind", f"{home}: the home of {opened.kind} {opened.party}; give that of an operator")
    return opened


def _client(home: Home) -> OperatorClient:
    pin_tls13()  # before gRPC is loaded
    try:
        from fedcredit.runtime.runs.operator_client import OperatorClient  # noqa: PLC0415 -- needs the extra "deploy"
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed; runs between institutions need fedcredit[deploy]"
        raise SpecError("deploy.missing", text) from None
    if home.kind is not MemberKind.OPERATOR:
        raise SpecError("home.kind", f"{home.folder}: the home of {home.kind} {home.party}; give that of an operator")
    return OperatorClient(home)


def _say(run: RunView, *, json: bool) -> None:
    if json:
        write_json(_view(run))
    else:
        detail = f": {run.detail}" if run.detail else ""
        write_line(f"run {run.run[:_SHOWN]} is {run.state}{detail}")


def _view(run: RunView) -> dict[str, object]:
    return {name: getattr(run, name) for name in run.__struct_fields__}

"""``fedcredit request``, ``provision`` and ``pin``: from names in a file to homes that trust each other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcredit.cli.console import write_json, write_line, write_notice, write_table
from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.process import STATUS_FILE, running_pid
from fedcredit.runtime.daemon.status import CoordinatorStatus, NodeStatus, read_status
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.consortium import Order, Provisioned, provision, provision_local, requests_in
from fedcredit.runtime.provision.pin import Pinned, pin
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.shipped import named_file
from fedcredit.spec.rules import nearest

__all__ = ["register", "write_pinned", "write_request"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_TAKEN_S = 10.0  # a daemon looks every second
_EXAMPLE = "configs/consortium/example.toml"
_TRIAL = "configs/consortium/credit_data.toml"


def register(app: typer.Typer) -> None:
    """Add ``request``, ``provision`` and ``pin`` to the program."""
    app.command("request", epilog="Example: fedcredit request --name operations --kind operator --out ~/fedcredit")(
        _request
    )
    epilog = (
        f"Examples: fedcredit provision {_EXAMPLE} --out bundles --requests requests; "
        f"for a trial on one machine: fedcredit provision {_TRIAL} --out trial --local"
    )
    app.command("provision", epilog=epilog)(_provision)
    app.command("pin", epilog='Example: fedcredit pin bundle --home ~/fedcredit --fingerprint "59214 38180 …"')(_pin)


def _request(
    name: Annotated[str, typer.Option("--name", help="This member's name in the consortium.")],
    out: Annotated[Path, typer.Option("--out", help="Its home; the keys are made here and stay here.")],
    kind: Annotated[str, typer.Option("--kind", help="node, operator or coordinator.")] = "node",
    rotate: Annotated[  # noqa: FBT002 -- typer reads the default of a flag
        bool, typer.Option("--rotate", help="Make new keys beside those in force, to replace them.")
    ] = False,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Make this member's keys here, and the request to send to the operator."""
    write_request(name, kind, out, rotate=rotate, json=json)


def write_request(name: str, kind: str, out: Path, *, rotate: bool = False, json: bool = False) -> None:
    """Makes a request and says what to do with it.

    Raises:
        SpecError: as in ``make_request``, or not a kind of member.
    """
    if kind not in list(MemberKind):
        raise SpecError("provision.kind", f"--kind {kind}: no kind of member; {nearest(kind, list(MemberKind))}")
    made = make_request(name, MemberKind(kind), out, rotate=rotate)
    if json:
        write_json(
            {"request": str(made.path), "keys": str(made.keys), "fingerprint": made.fingerprint, "fresh": made.fresh}
        )
        return
    write_line(f"{'made' if made.fresh else 'found'} the keys: {made.keys} (they stay there; back them up)")
    write_line(f"send to the operator: {made.path} (nothing in it is secret)", style="green")
    write_line(f"read out by telephone: {made.fingerprint}", style="bold")
    write_line(f"then, with the bundle that comes back: pin BUNDLE --home {out} --fingerprint …")


def _provision(  # noqa: PLR0913, PLR0917 -- a command's options are its arguments
    consortium: Annotated[
        Path, typer.Argument(metavar="CONSORTIUM", help="Who takes part (TOML), or a shipped trial's name.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundles and of the consortium's own keys.")],
    requests: Annotated[
        Path | None, typer.Option("--requests", help="Folder with the members' *.request.json.")
    ] = None,
    revoke: Annotated[
        list[str] | None, typer.Option("--revoke", metavar="NAME", help="A member whose keys count no more.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Renew every certificate now.")] = False,  # noqa: FBT002
    local: Annotated[  # noqa: FBT002 -- typer reads the default of a flag
        bool, typer.Option("--local", help="A ready trial on this machine: all keys in one place.")
    ] = False,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check requests, issue certificates, sign the roster, and write one bundle per member."""
    spec = load_consortium(named_file("consortium", consortium))
    if local:
        if requests or revoke or renew:
            raise SpecError("provision.local", "--local stands alone; leave out --requests, --revoke and --renew")
        homes = provision_local(spec, out)
        write_notice(f"TRIAL ONLY: all private keys of {spec.name} are in {out}; never use it with real records")
        rows = [(name, str(spec.kinds[name]), str(folder)) for name, folder in homes.items()]
        if json:
            write_json({"consortium": spec.name, "trial": True, "homes": {row[0]: row[2] for row in rows}})
        else:
            write_table(("MEMBER", "KIND", "HOME"), rows)
        return
    files = requests_in(requests) if requests else []
    done = provision(spec, out, Order(files, tuple(revoke or ()), renew))
    if json:
        write_json(_provisioned(done))
    else:
        _show(done, out)


def _provisioned(done: Provisioned) -> dict[str, Any]:
    return {
        "consortium": done.roster.consortium,
        "roster": {"version": done.roster.version, "digest": done.roster.digest},
        "fingerprint": done.fingerprint,
        "members": done.fingerprints,
        "bundles": {name: str(folder) for name, folder in done.bundles.items()},
        "changes": list(done.changes),
        "waiting": list(done.waiting),
    }


def _show(done: Provisioned, out: Path) -> None:
    for line in done.changes or ("nothing changed",):
        write_line(line)
    roster = done.roster
    write_line(f"{roster.consortium}, roster {roster.version}; read its fingerprint out to every member:")
    write_line(f"  {done.fingerprint}", style="bold green")
    rows = [
        (name, str(roster.members[name].kind), done.fingerprints[name], str(folder))
        for name, folder in done.bundles.items()
    ]
    write_table(("MEMBER", "KIND", "COMPARE BY TELEPHONE", "BUNDLE"), rows)
    if done.waiting:
        write_notice(f"no request yet of {', '.join(done.waiting)}")
    write_notice(f"back up {out / 'authority'}: it is the consortium; nobody else may read it")


def _pin(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder from the operator.")],
    home: Annotated[Path, typer.Option("--home", help="This member's home, where its keys are.")],
    expected: Annotated[
        str | None, typer.Option("--fingerprint", help="The consortium's, as the operator read it out.")
    ] = None,
    json: Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check a bundle and take it into this member's home."""
    write_pinned(bundle, home, expected, json=json)


def write_pinned(bundle: Path, home: Path, expected: str | None, *, json: bool = False) -> None:
    """Pins a bundle and shows whose fingerprints are to be compared.

    Raises:
        SpecError: as in ``pin``.
        IntegrityError: as in ``pin``.
    """
    pinned = pin(bundle, home, expected)
    opened = open_home(home)
    daemon = _taken(opened)
    if json:
        write_json(
            {
                "party": pinned.party,
                "consortium": pinned.consortium,
                "roster": pinned.version,
                "fingerprint": pinned.fingerprint,
                "members": pinned.fingerprints,
                "first": pinned.first,
                "compared": pinned.compared,
                "rotated": pinned.rotated,
                "kept": list(pinned.kept),
                "changes": list(pinned.changes),
                "daemon": daemon,
            }
        )
        return
    _show_pinned(pinned)
    if daemon == "taken":
        write_line("the running daemon has taken it; runs and connections go on", style="green")
    elif daemon:
        write_notice(f"the running daemon has not taken it: {daemon}")


def _taken(home: Home) -> str:
    """Whether a daemon of the home has taken what was pinned: ``taken``, why not, or "" where none runs."""
    if home.kind is MemberKind.OPERATOR:
        return ""
    path, node = home.state / STATUS_FILE, home.kind is MemberKind.NODE
    until = time.monotonic() + _TAKEN_S
    while (pid := running_pid(home.state)) is not None:
        status = read_status(path, NodeStatus) if node else read_status(path, CoordinatorStatus)
        told = status if status is not None and status.pid == pid else None
        if told is not None and (told.roster_version, told.roster_digest) == (home.roster.version, home.roster.digest):
            return "taken"
        if time.monotonic() > until:
            return (told.notice if told else "") or f"no answer within {_TAKEN_S:.0f} s; see `status`"
        time.sleep(0.2)
    return ""


def _show_pinned(pinned: Pinned) -> None:
    rotated = ", with the new keys" if pinned.rotated else ""
    write_line(f"{pinned.party} pinned roster {pinned.version} of {pinned.consortium}{rotated}", style="green")
    rows = [("the consortium", pinned.fingerprint), *pinned.fingerprints.items()]
    write_table(("WHO", "COMPARE BY TELEPHONE"), rows)
    if pinned.first and not pinned.compared:
        write_notice("the consortium's fingerprint was not compared; ask the operator by telephone before any run")
    if pinned.changes:
        write_notice(f"since the last pin: {', '.join(pinned.changes)}; compare those by telephone")
    if pinned.kept:
        write_notice(f"kept as they are here: {', '.join(pinned.kept)}; the bundle's differ")
    if pinned.first:
        write_line("next: CHECKLIST.md in the home, then fedcredit doctor --home HOME")

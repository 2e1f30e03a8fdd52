"""``fedcredit-node``: what a house's people see of proposed runs, and what they decide."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from fedcredit.catalog.load import load_catalog
from fedcredit.runtime.daemon.process import DaemonLock
from fedcredit.runtime.daemon.status import ExchangeView, NodeStatus, ProcessView, SuperLinkView, write_status
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.proposal import Decision, make_proposal
from fedcredit.runtime.session.node import consider
from fedcredit.spec.load import parse_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import RunId
from fedcredit.wire.message import decode_struct
from nodes.cli import main

CATALOGS = Path(__file__).parents[2] / "configs" / "catalog"
Capture = pytest.CaptureFixture[str]
RUN, OTHER = RunId("5f2a81c0" + "1" * 24), RunId("77777777" + "2" * 24)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, Home]:
    (tmp_path / "loans.csv").write_text("id,bad,a\n1,0,2\n2,1,3\n")
    raw: dict[str, Any] = {
        "name": "north",
        "trial": True,
        "coordinator": {"exchange": f"127.0.0.1:{free_port()}", "fleet": f"127.0.0.1:{free_port()}"},
        "member": [
            {"name": "bank", "data": {"loans": {"source": str(tmp_path / "loans.csv")}}},
            {"name": "tax_office"},
            {"name": "ops", "kind": "operator"},
        ],
    }
    made = provision_local(ConsortiumSpec.model_validate(raw), tmp_path / "homes")
    policy = made["bank"] / "policy.toml"  # type: ignore[index]
    policy.write_text(
        policy.read_text().replace("any_run = true\n", "").replace("max_message", "enforce = true\nmax_message")
    )
    return {name: open_home(path) for name, path in made.items()}


@pytest.fixture
def bank(homes: dict[str, Home], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a bank to which two runs were proposed."""
    for run, name in ((RUN, "march"), (OTHER, "april")):
        spec = parse_spec(
            {
                "run": {"name": name, "mode": "simulation"},
                "align": {"mode": "plain"},
                "privacy": {"max_equations": 40},
                "party": [
                    {"name": "bank", "role": "label_holder", "source": "x", "label": "bad", "columns": ["a"]},
                    {"name": "tax_office", "role": "feature_holder", "source": "y"},
                ],
            }
        )
        proposal = make_proposal(homes["coordinator"], run, travelling_json(spec, "loans"))
        decision = decode_struct(Decision, consider(homes["bank"], proposal), "decision")
        assert decision.state == "pending", decision.text
    folder = homes["bank"].folder
    monkeypatch.setenv("FEDCREDIT_HOME", str(folder))
    return folder


def runs(capsys: Capture) -> dict[str, dict[str, Any]]:
    main(["status", "--json"])
    return {one["run"]: one for one in json.loads(capsys.readouterr().out)["runs"]}


def test_status_shows_what_waits_for_a_decision(bank: Path, capsys: Capture) -> None:
    assert main(["status"]) == 3
    told = capsys.readouterr()
    assert RUN[:12] in told.out
    assert "march" in told.out
    assert "pending" in told.out
    assert "2 wait for a decision; look at one: fedcredit-node approve" in told.err
    assert told.err.splitlines()[-1] == f"error: {bank}: its daemon does not run; `start` starts it [daemon.down]"


def test_what_is_asked_is_shown_before_it_is_approved(bank: Path, capsys: Capture) -> None:
    assert bank.is_dir()
    assert main(["approve", RUN[:8]]) == 2  # nobody to ask
    told = capsys.readouterr()
    shown = dict(
        line.split(maxsplit=1) for line in told.out.splitlines() if line.split()[0] in {"run", "caps", "parties"}
    )
    assert shown["run"] == RUN
    assert shown["parties"] == "bank (label_holder), tax_office (feature_holder)"
    assert shown["caps"] == "equations a feature 40, else the ledger's own"
    for text in ("own columns  a", "[data.loans]", "rlwe-8192", "march (scorecard, simulation)"):
        assert text in told.out
    assert "decide with --yes" in told.err
    assert runs(capsys)[RUN]["state"] == "pending"


def propose(homes: dict[str, Home], run: str, **align: Any) -> None:
    """A third run, whose rows are found in another way, by derived features of the bank."""
    party = {"name": "bank", "role": "label_holder", "source": "x", "label": "bad", "id": "uscc"}
    spec = parse_spec(
        {
            "run": {"name": "june", "mode": "simulation"},
            "align": {"registry": "register.csv", **align},
            "party": [
                {**party, "catalog": "c.toml", "as_of": "2025-12-31"},
                {"name": "tax_office", "role": "feature_holder", "source": "y"},
            ],
        }
    )
    folder = homes["bank"].folder
    (folder / "register.csv").write_text("\n".join(["id", *(f"E{number}" for number in range(1234))]))
    shutil.copy(CATALOGS / "bank.toml", folder / "bank.toml")
    settings = (
        (folder / "node.toml")
        .read_text()
        .replace("[data.loans]", '[data.loans]\ncatalog = "bank.toml"\nregistry = "register.csv"')
    )
    (folder / "node.toml").write_text(settings)
    proposal = make_proposal(homes["coordinator"], RunId(run), travelling_json(spec, "loans"))
    decision = decode_struct(Decision, consider(open_home(folder), proposal), "decision")
    assert decision.state == "pending", decision.text


def shown_before_approval(capsys: Capture, run: str) -> dict[str, str]:
    capsys.readouterr()
    assert main(["approve", run]) == 2  # nobody to ask
    lines = capsys.readouterr().out.splitlines()
    return {line[:13].strip(): line[13:] for line in lines}


THIRD = "3" * 32


@pytest.mark.parametrize(
    ("align", "words", "short"),
    [
        ({"mode": "registry"}, "registry: nobody learns who is whose customer", "registry"),
        (
            {"mode": "blind", "decoys": 1.0},
            "blind with decoys 1.0: of the common rows, 50 % are no customers",
            "blind",
        ),
        (
            {"mode": "blind", "decoys": 0.5},
            "WARNING: blind with decoys 0.5: of the common rows, 33 % are no customers",
            "blind",
        ),
        (
            {"mode": "blind", "decoys": 0.0},
            "WARNING: blind without decoys: every feature holder learns who is a customer",
            "NO DECOYS",
        ),
    ],
    ids=["registry", "blind", "few", "none"],
)
def test_people_read_what_tells_others_of_their_customers(
    bank: Path, homes: dict[str, Home], capsys: Capture, align: dict[str, Any], words: str, short: str
) -> None:
    propose(homes, THIRD, **align)
    shown = shown_before_approval(capsys, THIRD)
    assert shown["rows by"] == words
    assert re.fullmatch(r"1,234 ids of this house's file, digest [0-9a-f]{16}…", shown["register"])
    count = len(load_catalog(CATALOGS / "bank.toml").features)
    derived = rf"{count} features of catalogue bank\.toml \([0-9a-f]{{16}}…\), as of 2025-12-31; nothing after .*"
    assert re.fullmatch(derived, shown["derived"])
    main(["status"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(THIRD[:12]))
    assert short in row
    assert bank.is_dir()
    known = runs(capsys)[THIRD]
    assert (known["align"], known["as_of"]) == (short, "2025-12-31")


def test_people_read_that_a_file_is_missing(bank: Path, homes: dict[str, Home], capsys: Capture) -> None:
    propose(homes, THIRD, mode="registry")
    (bank / "register.csv").unlink()
    (bank / "bank.toml").write_text("x = 1")
    shown = shown_before_approval(capsys, THIRD)
    assert shown["register"].startswith("WARNING: CANNOT BE READ: ")
    assert shown["derived"].startswith("WARNING: CANNOT BE READ: ")


def test_approve_and_deny(bank: Path, capsys: Capture) -> None:
    stop = bank / "state" / "runs" / RUN / "stop"
    stop.parent.mkdir(parents=True)
    stop.touch()
    assert main(["approve", RUN[:8], "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"] == "approved"
    assert not stop.exists()
    assert main(["deny", OTHER, "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"denied: run {OTHER[:12]}"
    assert runs(capsys)[OTHER]["state"] == "denied"
    assert runs(capsys)[RUN]["state"] in {"approved", "running"}


def test_unknown_runs_are_named(bank: Path, capsys: Capture) -> None:
    assert bank.is_dir()
    for command in ("approve", "deny"):
        assert main([command, "0" * 32, "--yes"]) == 2
        assert "no such run was proposed to this house" in capsys.readouterr().err


def test_a_run_is_left_by_its_file(bank: Path, capsys: Capture) -> None:
    folders = [bank / "state" / "runs" / run for run in (RUN, OTHER)]
    assert main(["stop", RUN[:8]]) == 2
    assert "no such run goes on" in capsys.readouterr().err
    for folder in folders:
        folder.mkdir(parents=True)
    assert main(["stop", RUN[:8]]) == 0
    assert [(folder / "stop").exists() for folder in folders] == [True, False]
    assert main(["stop", "all", "--json"]) == 0
    assert [(folder / "stop").exists() for folder in folders] == [True, True]


def test_stop_without_a_run_is_about_the_daemon(bank: Path, capsys: Capture) -> None:
    (bank / "state" / "runs" / RUN).mkdir(parents=True)
    assert main(["stop"]) == 0
    assert capsys.readouterr().out == "it was not running\n"
    assert not (bank / "state" / "runs" / RUN / "stop").exists()


def test_status_of_a_running_daemon(bank: Path, capsys: Capture) -> None:
    home = open_home(bank)
    lock = DaemonLock(home.state)
    assert main(["status"]) == 3
    assert "is starting" in capsys.readouterr().err
    write_status(
        home.state / "daemon.json",
        NodeStatus(
            party="bank",
            consortium="north",
            roster_version=1,
            roster_digest="d" * 64,
            version="1",
            pid=os.getpid(),
            started="2026-01-01T00:00:00Z",
            written="2026-01-01T00:00:00Z",
            missing="supernode does not run",
            certificate_seconds=20 * 86400.0,
            processes=[ProcessView(name="supernode", running=False, since="2026-01-01T00:00:00Z", restarts=3)],
            exchange=ExchangeView(address="hub:9443", reachable=True, since="2026-01-01T00:00:00Z"),
            runs={},
            ledger=[],
            traffic=[],
            stage_seconds={},
        ),
    )
    assert main(["status"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == "bank of north: NOT READY"
    for text in ("supernode does not run", "20 days left; renew it", "hub:9443, connected since 2026-01-01", "DOWN"):
        assert text in told
    assert all(len(line) <= 80 for line in told.splitlines())
    lock.close()


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (SuperLinkView(), ["SuperLink    not known"]),
        (
            SuperLinkView(state="connected", since="2026-01-01T00:00:00Z"),
            ["SuperLink    connected since 2026-01-01 00:00Z"],
        ),
        (
            SuperLinkView(state="refused", why="key not registered; ask the operator"),
            ["SuperLink    refused: key not registered", "to do        ask the operator"],
        ),
        (
            SuperLinkView(state="away", since="2026-01-01T00:00:00Z", why="not let in; wait"),
            ["SuperLink    AWAY since 2026-01-01 00:00Z: not let in", "to do        wait"],
        ),
    ],
)
def test_status_says_whether_the_superlink_has_let_it_in(
    bank: Path, capsys: Capture, view: SuperLinkView, shown: list[str]
) -> None:
    home = open_home(bank)
    lock = DaemonLock(home.state)
    moment = "2026-01-01T00:00:00Z"
    write_status(
        home.state / "daemon.json",
        NodeStatus(
            party="bank",
            consortium="north",
            roster_version=1,
            roster_digest="d" * 64,
            version="1",
            pid=os.getpid(),
            started=moment,
            written=moment,
            missing="",
            certificate_seconds=1e7,
            processes=[],
            exchange=ExchangeView(address="hub:9443", reachable=True, since=moment),
            superlink=view,
            notice="roster 3 was refused",
            runs={},
            ledger=[],
            traffic=[],
            stage_seconds={},
        ),
    )
    assert main(["status"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith(("SuperLink", "to do"))] == shown
    assert "notice       roster 3 was refused" in lines
    lock.close()


@pytest.mark.parametrize("command", ["start", "serve", "status", "stop"])
def test_other_homes_are_refused(homes: dict[str, Home], capsys: Capture, command: str, tmp_path: Path) -> None:
    assert main([command, "--home", str(homes["ops"].folder)]) == 2
    assert "the home of an operator; give that of a node" in capsys.readouterr().err
    assert main([command, "--home", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_every_command_has_an_example(capsys: Capture) -> None:
    for command in ("start", "serve", "status", "approve", "deny", "stop", "request", "pin"):
        assert main([command, "--help"]) == 0
        assert f"fedcredit-node {command}" in " ".join(capsys.readouterr().out.split("Example")[1].split())
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedcredit-node ")
    assert main(["approve"]) == 2
    assert capsys.readouterr().err.endswith("(see fedcredit-node --help)\n")

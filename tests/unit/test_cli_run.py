"""``fedcredit run`` against a coordinator's operators' interface over mutual TLS; the runs' driver is the test."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from fedcredit.cli import main
from fedcredit.runtime.daemon.logs import Logs
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.tls import server_credentials, server_options
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.operator_api import OperatorApi
from fedcredit.runtime.runs.proposal import Finished, signed_finished
from fedcredit.runtime.runs.registry import Registry
from fedcredit.types import PartyId, RunId

Homes = dict[str, Home]
Capture = pytest.CaptureFixture[str]
CONFIG = """
[run]
name = "first"
mode = "simulation"
[align]
mode = "plain"
[[party]]
name = "bank"
role = "label_holder"
source = "postgresql://reader:${BANK_PASSWORD}@secret-host/loans"
query = "select secret from loans"
label = "bad"
[[party]]
name = "tax_office"
role = "feature_holder"
source = "/secret/tax.csv"
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    raw: dict[str, Any] = {
        "name": "north",
        "trial": True,
        "coordinator": {"exchange": f"127.0.0.1:{free_port()}", "fleet": f"127.0.0.1:{free_port()}"},
        "member": [{"name": "bank"}, {"name": "tax_office"}, {"name": "ops", "kind": "operator"}],
    }
    made = provision_local(ConsortiumSpec.model_validate(raw), tmp_path_factory.mktemp("north"))
    return {name: open_home(path) for name, path in made.items()}


@pytest.fixture
def registry(homes: Homes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The coordinator's, behind its interface on the consortium's address."""
    monkeypatch.setenv("FEDCREDIT_HOME", str(homes["ops"].folder))
    monkeypatch.setattr("fedcredit.cli.run_watch._PAUSE", 0.02)
    book, logs = Registry(tmp_path / "registry.sqlite"), Logs("coordinator", tmp_path, quiet=True)
    api = OperatorApi(book, homes["coordinator"].roster, logs.log)
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = grpc.aio.server(options=server_options(ServerLimits()))
        server.add_generic_rpc_handlers([api.handler()])
        server.add_secure_port(homes["ops"].roster.exchange, server_credentials(homes["coordinator"].tls))
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield book
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()
    book.close()
    logs.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


def submitted(config: Path, capsys: Capture, *more: str) -> RunId:
    assert main(["run", "submit", str(config), "--data", "loans", "--json", *more]) == 0
    return RunId(json.loads(capsys.readouterr().out)["run"])


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def drive(registry: Registry, run: RunId, end: str, detail: str) -> None:
    for state in ("proposing", "running"):
        registry.set_state(run, state)
    registry.event(run, "bank", "approved", "bank approved")
    registry.set_state(run, end, detail)


def test_only_the_spec_travels(registry: Registry, config: Path, capsys: Capture) -> None:
    run = submitted(config, capsys, "--set", "bin.max_bins=5")
    record = registry.get(run)
    assert (record.name, record.data, record.parties) == ("first", "loans", ("bank", "tax_office"))
    assert '"max_bins":5' in record.spec_json
    for secret in ("secret", "postgresql", "PASSWORD"):
        assert secret not in record.spec_json
    assert [one.party for one in registry.events(run)] == ["", "ops"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "../x"], "--data '../x': a name of records"),
        (["--data", "loans", "--set", "bin.max_bin=5"], "max_bins"),
        (["--data", "loans", "--set", "run.mode=production"], "is for simulation only"),
        (["--data", "loans", "--set", "party.bank.name=customs"], "customs is not in roster"),
        (["--data", "loans", "--set", "party.bank.name=ops"], "party ops is no node"),
        ([], "Missing option '--data'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(
    registry: Registry, config: Path, capsys: Capture, arguments: list[str], text: str
) -> None:
    assert main(["run", "submit", str(config), *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert text in told.err
    assert registry.runs() == []


def test_list_shows_the_newest_first(registry: Registry, config: Path, capsys: Capture) -> None:
    runs = [submitted(config, capsys, "--set", f"run.name=run-{number}") for number in range(3)]
    registry.set_state(runs[1], "failed", "bank is gone [run.missing]")
    assert main(["run", "list", "--limit", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [runs[2][:12], runs[1][:12]]
    assert "bank is gone [run.missing]" in lines[2]
    assert main(["run", "list", "--json"]) == 0
    assert [one["run"] for one in json.loads(capsys.readouterr().out)] == runs[::-1]


def test_watch_prints_a_line_for_each_event_and_exits_0(registry: Registry, config: Path, capsys: Capture) -> None:
    run = submitted(config, capsys)
    driver = in_background(lambda: drive(registry, run, "finished", "all parties have finished"))
    assert main(["run", "watch", run[:8]]) == 0
    driver.join()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[4].endswith("bank           approved     bank approved")
    assert lines[-1] == f"run {run[:12]} finished: all parties have finished"


@pytest.mark.parametrize(
    ("end", "detail", "line"),
    [
        ("failed", "bank: its ledger is used up [ledger.cap]", "failed: bank: its ledger is used up [ledger.cap]"),
        ("stopped", "", "stopped: no reason given [run.stopped]"),
    ],
)
def test_the_outcome_is_the_exit_code(
    registry: Registry, config: Path, capsys: Capture, end: str, detail: str, line: str
) -> None:
    run = submitted(config, capsys)
    drive(registry, run, end, detail)
    assert main(["run", "watch", run, "--json"]) == 3
    told = capsys.readouterr()
    assert told.err == f"error: run {run[:12]} {line}\n"
    printed = [json.loads(one) for one in told.out.splitlines()]
    assert [one["number"] for one in printed[:-1]] == sorted({one["number"] for one in printed[:-1]})
    assert printed[-1] == {"run": run, "state": end, "detail": detail}


def test_a_run_that_goes_on_without_the_missing_is_followed(registry: Registry, config: Path, capsys: Capture) -> None:
    run = submitted(config, capsys)
    record = registry.get(run)
    drive(registry, run, "failed", "tax_office is gone [run.missing]")
    following = registry.submit(record.spec_json, "first", record.spec_digest, "scorecard", "loans", continues=run)
    drive(registry, following, "finished", "")
    assert main(["run", "watch", run]) == 0
    told = capsys.readouterr()
    assert f"goes on without the missing as run {following}" in told.err
    assert told.out.splitlines()[-1] == f"run {following[:12]} finished"


def test_submit_and_watch(registry: Registry, config: Path, capsys: Capture) -> None:
    def driver() -> None:
        while not registry.runs():
            pass
        drive(registry, registry.runs()[0].run, "finished", "")

    thread = in_background(driver)
    assert main(["run", "submit", str(config), "--data", "loans", "--watch"]) == 0
    thread.join()
    assert capsys.readouterr().out.splitlines()[0].startswith("submitted: run ")


def test_stop_and_resume(registry: Registry, config: Path, capsys: Capture) -> None:
    run = submitted(config, capsys)
    assert main(["run", "stop", run[:6], "--reason", "wrong month"]) == 0
    assert capsys.readouterr().out == f"run {run[:12]} is stopped: stopped by ops: wrong month\n"
    assert main(["run", "resume", run[:6], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "submitted"
    assert main(["run", "resume", run]) == 2
    assert "only a failed or stopped run" in capsys.readouterr().err


def finished(home: Home, run: RunId, shared: bytes = b"") -> bytes:
    return signed_finished(home, Finished(party=home.party, run=run, ok=True, audit_head="a" * 64, shared=shared))


def test_an_operator_fetches_a_record_whose_signatures_hold(
    registry: Registry, homes: Homes, config: Path, capsys: Capture, tmp_path: Path
) -> None:
    run, out = submitted(config, capsys), tmp_path / "out"
    registry.outcome(run, PartyId("bank"), finished(homes["bank"], run, b'{"auc_test": 0.8}'))
    registry.outcome(run, PartyId("tax_office"), finished(homes["tax_office"], run))
    assert main(["run", "fetch", run[:8], "--out", str(out)]) == 0
    record = json.loads((out / "record.json").read_text())
    assert (record["run"], record["state"]) == (run, "submitted")
    assert record["outcomes"]["bank"]["audit_head"] == "a" * 64
    assert json.loads((out / "shared" / "bank.json").read_text()) == {"auc_test": 0.8}
    assert [path.name for path in (out / "shared").iterdir()] == ["bank.json"]
    assert (out / "outcomes" / "tax_office.bin").read_bytes() == registry.outcomes(run)[PartyId("tax_office")]
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["state", "operator"]
    assert json.loads((out / "spec.json").read_text())["run"]["name"] == "first"
    capsys.readouterr()
    assert main(["run", "fetch", run, "--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err


def test_an_outcome_in_anothers_name_is_not_fetched(
    registry: Registry, homes: Homes, config: Path, capsys: Capture, tmp_path: Path
) -> None:
    run = submitted(config, capsys)
    registry.outcome(run, PartyId("bank"), finished(homes["tax_office"], run))
    assert main(["run", "fetch", run, "--out", str(tmp_path / "out")]) == 3
    assert "finished of bank" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_node_fetches_its_own_finished_run(homes: Homes, capsys: Capture, tmp_path: Path) -> None:
    home, out = homes["bank"], tmp_path / "mine"
    for name in ("1" * 32, "12" + "0" * 30):
        (home.runs / name / "model").mkdir(parents=True)
        (home.runs / name / "summary.json").write_text(name)
    command = ["run", "fetch", "12", "--out", str(out), "--home", str(home.folder)]
    assert main(command) == 0
    assert (out / "summary.json").read_text() == "12" + "0" * 30
    assert (out / "model").is_dir()
    capsys.readouterr()
    for which, text in (("1", "2 finished runs begin so"), ("f", "no such run has finished")):
        assert main(["run", "fetch", which, "--out", str(tmp_path / "x"), "--home", str(home.folder)]) == 2
        assert text in capsys.readouterr().err


def test_other_homes_are_refused_by_name(homes: Homes, config: Path, capsys: Capture) -> None:
    for name in ("bank", "coordinator"):
        assert main(["run", "list", "--home", str(homes[name].folder)]) == 2
        assert f"{name}; give that of an operator" in capsys.readouterr().err


def test_help_has_an_example_for_every_command(capsys: Capture) -> None:
    for command in ("submit", "list", "watch", "stop", "resume", "fetch"):
        assert main(["run", command, "--help"]) == 0
        assert f"run {command}" in capsys.readouterr().out.split("Example:")[1]

"""Rosters and certificates that are renewed under real daemons, and a house behind a firewall with one way out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.errors import FedCreditError
from fedcredit.runtime.daemon.process import running_pid
from fedcredit.runtime.daemon.proxy import find_nginx
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.consortium import Order, provision
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.runtime.runs.registry import Registry
from fedcredit.types import RunId

if TYPE_CHECKING:
    from tests.e2e import test_operators_daemons as daemons
else:
    sys.path.insert(0, str(Path(__file__).parent))
    import test_operators_daemons as daemons

try:
    find_nginx()
except FedCreditError as missing:
    pytest.skip(f"NOT TESTED: {missing}", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Renewed(daemons.Town):
    """A town whose authority stays at hand."""

    def change(self, *, revoke: tuple[str, ...] = (), renew: bool = False, rotate: str = "") -> None:
        """Provisions anew, into another folder than the homes, and pins everywhere but at who was revoked."""
        out = self.homes["coordinator"].parent.with_name("out")
        if not out.is_dir():
            (out / "requests").mkdir(parents=True)
            shutil.copytree(self.homes["coordinator"].parent / "authority", out / "authority")
        self.gone = getattr(self, "gone", set()) | set(revoke)
        requests = []
        if rotate:
            requests = [make_request(rotate, MemberKind.NODE, self.homes[rotate], rotate=True).path]
        members = [{"name": one} for one in daemons.NODES if one not in self.gone]
        if "ops" not in self.gone:
            members.append({"name": "ops", "kind": "operator"})
        address = open_home(self.homes["coordinator"]).roster.exchange
        raw: dict[str, Any] = {
            "name": "north",
            "trial": True,
            "coordinator": {"address": address},
            "member": members,
        }
        done = provision(ConsortiumSpec.model_validate(raw), out, Order(requests, revoke, renew))
        for who in ("coordinator", *(one for one in daemons.NODES if one not in self.gone)):
            call = self.coordinator if who == "coordinator" else lambda *a, who=who: self.node(who, *a)
            told = json.loads(call("pin", str(out / who), "--fingerprint", done.fingerprint, "--json"))
            assert told["daemon"] == "taken", (who, told)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, consortium: Callable[..., Path]) -> Iterator[Renewed]:
    config = consortium(tmp_path_factory.mktemp("records"), holders=("tax_office",), rows=1500)
    one = Renewed(tmp_path_factory.mktemp("homes") / "homes", config)
    try:
        one.coordinator("start", "--wait", daemons.WAIT)
        for who in daemons.NODES:
            one.node(who, "start", "--wait", daemons.WAIT)
        yield one
    finally:
        for who in (*daemons.NODES, "coordinator"):
            pid = running_pid(one.homes[who] / "state")
            if pid:
                os.kill(pid, signal.SIGKILL)


def status(town: Renewed, who: str) -> dict[str, Any]:
    if who == "coordinator":
        found: dict[str, Any] = json.loads(town.coordinator("status", "--json"))
        return found
    return dict(json.loads(town.node(who, "status", "--json"))["daemon"])


def processes(town: Renewed, who: str) -> dict[str, tuple[str, int]]:
    return {one["name"]: (one["since"], one["restarts"]) for one in status(town, who)["processes"]}


def sockets(home: Path) -> dict[str, int]:
    """Inodes of the sockets of all processes of a home, by what `/proc` calls them, with the process."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(home).encode() not in told:
                continue
            for fd in (process / "fd").iterdir():
                target = str(fd.readlink())
                if target.startswith("socket:["):
                    found[target[8:-1]] = int(process.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def destinations(home: Path) -> set[str]:
    """Where the processes of a home are connected to, over TCP, other than to each other."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = sockets(home)
    own = {row[1] for row in table if row[9] in mine}
    return {
        f"127.0.0.1:{int(row[2].split(':')[1], 16)}"
        for row in table
        if row[9] in mine and row[3] in {"01", "02"} and row[2] not in own and row[1] not in listening(table, mine)
    }


def listening(table: list[list[str]], mine: dict[str, int]) -> set[str]:
    """Addresses that these processes listen on; what comes in there is not theirs to begin."""
    return {row[1] for row in table if row[9] in mine and row[3] == "0A"}


def test_a_house_connects_to_one_address_and_to_nothing_else(town: Renewed) -> None:
    address = open_home(town.homes["coordinator"]).roster.exchange
    run = town.submit("scorecard.fit=mle", "scorecard.total_noise=0.125")
    seen = {who: set[str]() for who in daemons.NODES}
    approved, end = False, time.monotonic() + 400
    while town.state(run) not in {"finished", "failed"}:
        assert time.monotonic() < end
        if not approved and town.node_state("tax_office", run) == "pending":
            town.node("tax_office", "approve", run[:8], "--yes")
            approved = True
        for who in daemons.NODES:
            for _ in range(20):
                seen[who] |= destinations(town.homes[who])
                time.sleep(0.05)
    assert town.state(run) == "finished"
    assert seen == {who: {address} for who in daemons.NODES}


def test_certificates_are_renewed_while_a_run_is_under_way(town: Renewed) -> None:
    for who in daemons.NODES:
        assert status(town, who)["superlink"]["state"] == "connected"
    assert status(town, "coordinator")["away"] == []
    run = town.submit()
    daemons.until(lambda: town.node_state("tax_office", run) == "pending")
    town.node("tax_office", "approve", run[:8], "--yes")
    daemons.until(lambda: town.state(run) == "running")
    before = {who: (town.pid(who), processes(town, who)) for who in ("coordinator", *daemons.NODES)}
    left = {who: status(town, who)["certificate_seconds"] for who in before}
    town.change(renew=True)
    told = town.run("watch", run)
    assert told.splitlines()[-1].startswith(f"run {run[:12]} finished")
    for who, (pid, running) in before.items():
        assert (town.pid(who), processes(town, who)) == (pid, running), "nothing was started again"
        now = status(town, who)
        assert (now["roster_version"], now["missing"], now["notice"]) == (2, "", "")
        assert now["certificate_seconds"] > left[who]


def test_a_house_with_new_keys_is_let_in_without_a_restart(town: Renewed) -> None:
    pid = town.pid("tax_office")
    town.change(rotate="tax_office")
    log = town.homes["tax_office"] / "logs" / "daemon.jsonl"
    daemons.until(lambda: "supernode.renewed" in log.read_text())
    daemons.until(lambda: status(town, "tax_office")["superlink"]["state"] == "connected")
    assert town.pid("tax_office") == pid
    run = town.submit("scorecard.fit=mle", "scorecard.total_noise=0.25")
    daemons.until(lambda: town.node_state("tax_office", run) == "pending")
    town.node("tax_office", "approve", run[:8], "--yes")
    assert town.run("watch", run).splitlines()[-1].startswith(f"run {run[:12]} finished")


def test_a_revoked_house_is_out_within_seconds_and_its_run_stops_by_name(town: Renewed) -> None:
    run = town.submit("scorecard.fit=mle", "scorecard.total_noise=0.5")
    daemons.until(lambda: town.node_state("tax_office", run) == "pending")
    town.node("tax_office", "approve", run[:8], "--yes")
    daemons.until(lambda: town.state(run) == "running")
    begun = time.monotonic()
    town.change(revoke=("tax_office",))
    daemons.until(lambda: town.state(run) in {"stopping", "stopped"}, 30)
    assert time.monotonic() - begun < 60
    town.run("watch", run, code=3)
    book = Registry(town.homes["coordinator"] / "state" / "registry.sqlite")
    noted = [(one.party, one.text) for one in book.events(RunId(run)) if one.event == "revoked"]
    book.close()
    version = status(town, "coordinator")["roster_version"]
    assert noted == [("tax_office", f"tax_office was revoked (roster {version})")]
    daemons.until(lambda: status(town, "tax_office")["superlink"]["state"] == "refused")
    shown = town.node("tax_office", "status")
    assert "SuperLink" in shown
    assert "refused" in shown
    assert status(town, "coordinator")["nodes"] == ["bank"]


def test_a_revoked_operator_is_refused_on_its_next_call(town: Renewed) -> None:
    town.run("list")
    town.change(revoke=("ops",))
    assert "belongs to no member" in town.run("list", code=3)

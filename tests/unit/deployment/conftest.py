"""A whole trial consortium in one process: real homes, keys, gates and files; the exchange is a function."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedcredit.errors import PeerError
from fedcredit.runtime.exchange.types import Delivery, LinkSettings, Parcel, PeerRestarted, Presence
from fedcredit.runtime.house.consent import approve
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.runtime.runs.proposal import (
    Decision,
    Finished,
    SessionOrder,
    check_finished,
    check_proposal,
    make_proposal,
)
from fedcredit.runtime.session import coordinator as coordinator_session
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.session import session
from fedcredit.runtime.session.files import own_approval
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

RUN = RunId("ab" * 16)


PRODUCTION: Mapping[str, Mapping[str, Any]] = {
    "run": {"mode": "production"},
    "align": {"mode": "registry", "registry": "register.csv"},
    "privacy": {"enforce": True},
}
"""Sections of a run on real records between houses."""


class Killed(BaseException):
    """A party's process is gone, in the middle of whatever it did."""


@dataclass(frozen=True)
class Frame:
    """What the relay has of one payload."""

    run: RunId
    sender: PartyId
    recipient: PartyId
    attempt: int
    sequence: int
    sealed: bytes
    body: bytes


@dataclass
class Hub:
    """An exchange without a network; heads are sealed for real, the relay does with frames what a test wants."""

    links: dict[tuple[RunId, PartyId], MemoryLink] = field(default_factory=dict)
    held: dict[tuple[RunId, PartyId], list[Frame]] = field(default_factory=dict)
    kill_at: dict[PartyId, int] = field(default_factory=dict)
    sent: dict[PartyId, int] = field(default_factory=dict)
    seen: list[Frame] = field(default_factory=list)
    relay: Callable[[Frame], Sequence[Frame]] = lambda frame: [frame]
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, frame: Frame) -> None:
        with self.lock:
            self.seen.append(frame)
            for one in self.relay(frame):
                place = (one.run, one.recipient)
                self.held.setdefault(place, []).append(one)
                if place in self.links:
                    self.links[place].wake()

    def take(self, link: MemoryLink) -> Delivery | None:
        """The next delivery of this attempt; None = nothing there."""
        settings = link.settings
        with self.lock:
            queue = self.held.setdefault((settings.run, settings.party), [])
            while queue:
                frame = queue.pop(0)
                if frame.attempt > settings.attempt:
                    link.opened(frame)
                    queue.insert(0, frame)
                    raise PeerRestarted(frame.sender, frame.attempt)
                if frame.attempt < settings.attempt:
                    continue
                head, due = link.opened(frame), link.due.get(frame.sender, 0)
                if frame.sequence > due:
                    text = f"{frame.sequence} of {frame.sender} came where {due} is missing"
                    raise PeerError("sealed.order", text, culprit=frame.sender)
                if frame.sequence == due:
                    link.due[frame.sender] = due + 1
                    if due:
                        return Delivery(frame.sender, head, frame.body)
        return None

    def drop(self, party: PartyId) -> None:
        """A party's links are gone."""
        with self.lock:
            for place in [place for place in self.links if place[1] == party]:
                del self.links[place]


class MemoryLink:
    """Stands in for `ExchangeLink`."""

    def __init__(self, hub: Hub, settings: LinkSettings) -> None:
        self.hub, self.settings = hub, settings
        self.loop: asyncio.AbstractEventLoop | None = None
        self.event = asyncio.Event()
        self.waiting: PartyId | None = None
        self.due: dict[PartyId, int] = {}
        self.sealers = {peer: settings.keys.sealer(peer, settings.attempt) for peer in settings.peers}

    def wake(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.event.set)

    def opened(self, frame: Frame) -> bytes:
        return self.settings.keys.opener(frame.sender, frame.attempt).open(frame.sequence, frame.sealed)

    def _put(self, recipient: PartyId, head: bytes, body: bytes) -> None:
        mine = self.settings
        self.hub.put(Frame(mine.run, mine.party, recipient, mine.attempt, *self.sealers[recipient].seal(head), body))

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        with self.hub.lock:
            self.hub.links[self.settings.run, self.settings.party] = self
        for peer in self.settings.peers:
            self._put(peer, b"", b"")

    async def close(self, *, flush: bool) -> None:
        """What was not taken by then is gone with its sender: the exchange keeps nothing for who is not there."""
        mine = self.settings
        for _ in range(400 if flush else 0):
            if not self._held_by_present():
                break
            await asyncio.sleep(0.005)
        with self.hub.lock:
            for place, queue in self.hub.held.items():
                if place not in self.hub.links:
                    queue[:] = [one for one in queue if (one.sender, one.attempt) != (mine.party, mine.attempt)]
            place = (mine.run, mine.party)
            if self.hub.links.get(place) is self:
                del self.hub.links[place]

    def _held_by_present(self) -> list[Frame]:
        with self.hub.lock:
            queues = [queue for place, queue in self.hub.held.items() if place in self.hub.links]
            return [one for queue in queues for one in queue if one.sender == self.settings.party]

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        me = self.settings.party
        number = self.hub.sent[me] = self.hub.sent.get(me, 0) + 1
        if self.hub.kill_at.get(me) == number:
            raise Killed
        for parcel in parcels:
            self._put(parcel.recipient, parcel.head, body)
        await asyncio.sleep(0)

    async def receive(self) -> Delivery:
        while True:
            self.event.clear()
            found = self.hub.take(self)
            if found is not None:
                return found
            await self.event.wait()

    def note(self, waiting_for: PartyId | None) -> None:
        self.waiting = waiting_for

    def presence(self) -> Mapping[PartyId, Presence]:
        with self.hub.lock:
            everyone = (self.settings.party, *self.settings.peers)
            links = {party: self.hub.links.get((self.settings.run, party)) for party in everyone}
        return {p: Presence(link is not None, 0.0, link.waiting if link else None) for p, link in links.items()}


@dataclass
class Trial:
    """Homes of everyone, and a hub between them."""

    folder: Path
    homes: dict[PartyId, Home]
    hub: Hub
    loaded: LoadedSpec

    @property
    def spec(self) -> Any:
        return self.loaded.spec

    def proposal(self, run: RunId = RUN, **changes: Any) -> bytes:
        text = changes.pop("spec", None) or travelling_json(self.spec, "records")
        return make_proposal(self.homes[COORDINATOR], run, text, **changes)

    def home(self, party: str) -> Home:
        return self.homes[PartyId(party)]

    def approve_all(self, run: RunId = RUN) -> bytes:
        """A proposal that everyone's people have seen and approved."""
        raw = self.proposal(run)
        for party in self.spec.parties:
            decision = self.consider(party, raw)
            assert decision.state == "pending", (decision.code, decision.text)
            approve(self.homes[party], run)
        return raw

    def refusals(self, party: str) -> list[dict[str, Any]]:
        """What a house has written down of what it refused."""
        file = self.home(party).folder / "logs" / "refusals.jsonl"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []

    def consider(self, party: PartyId, proposal: bytes) -> Decision:
        raw = node_session.consider(self.homes[party], proposal)
        return decode_struct(Decision, raw, "decision")

    def order(self, proposal: bytes, *, ended: bool = False) -> bytes:
        home = self.homes[COORDINATOR]
        checked = check_proposal(proposal, home.roster, datetime.now(UTC))
        approvals = []
        for party in checked.roster:
            if party == COORDINATOR:
                approvals.append(own_approval(home, checked))
            else:
                decision = self.consider(party, proposal)
                assert decision.state == "approved", (decision.code, decision.text)
                approvals.append(decision.approval)
        return encode_struct(SessionOrder(proposal=proposal, approvals=approvals, ended=ended))

    def play(self, party: PartyId, order: bytes) -> Finished:
        home = self.homes[party]
        run = coordinator_session.run_session if party == COORDINATOR else node_session.run_session
        raw = run(home, order)
        proposal = check_proposal(
            decode_struct(SessionOrder, order, "order").proposal,
            home.roster,
            datetime.now(UTC),
        )
        return check_finished(raw, party, proposal.run, home.roster)

    def change_policy(self, party: PartyId, **changes: Any) -> None:
        """Rewrites some keys of a house's policy."""
        change_policy(self.homes[party], **changes)

    def change_records(self, party: str, **changes: str | None) -> None:
        """Rewrites some keys of a house's records in its ``node.toml``; None removes one."""
        folder = self.home(party).folder
        data = tomllib.loads((folder / "node.toml").read_text("utf-8"))["data"]["records"]
        kept = {key: value for key, value in {**data, **changes}.items() if value is not None}
        change_file(folder / "node.toml", data={"records": kept})
        self.homes[PartyId(party)] = open_home(folder)

    def play_all(self, order: bytes, *, again: bool = True, without: Sequence[str] = ()) -> dict[PartyId, Finished]:
        """Everyone's session at once; who is killed starts again, as a supervised node would."""
        parties = [p for p in self.homes if p not in without and p != "operations"]

        def one(party: PartyId) -> Finished | None:
            for _ in range(8):
                try:
                    return self.play(party, order)
                except Killed:
                    self.hub.kill_at.pop(party, None)
                    self.hub.drop(party)
                    if not again:
                        return None
                    time.sleep(0.05)
            raise AssertionError(party)

        with ThreadPoolExecutor(len(parties)) as pool:
            found = dict(zip(parties, pool.map(one, parties), strict=True))
        return {party: finished for party, finished in found.items() if finished is not None}


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Homes of a consortium with these parties, to be copied: keys and certificates take their time."""
    known: dict[tuple[tuple[str, str], ...], Path] = {}

    def make(parties: Sequence[tuple[str, str]]) -> Path:
        if tuple(parties) not in known:
            folder = tmp_path_factory.mktemp("provisioned")
            members = [
                {"name": name, "role": role, "data": {"records": {"source": "elsewhere"}}} for name, role in parties
            ]
            content = {
                "name": "made-up",
                "trial": True,
                "coordinator": {"exchange": "127.0.0.1:9443", "fleet": "127.0.0.1:9444"},
                "member": [*members, {"name": "operations", "kind": "operator"}],
            }
            (folder / "consortium.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
            provision_local(load_consortium(folder / "consortium.toml"), folder / "homes")
            known[tuple(parties)] = folder / "homes"
        return known[tuple(parties)]

    return make


@pytest.fixture
def trial(
    tmp_path: Path,
    consortium: Callable[..., Path],
    provisioned: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Trial]:
    """Makes a trial consortium over made-up records."""

    def make(**options: Any) -> Trial:
        options.setdefault("rows", 400)
        loaded = load_spec(consortium(tmp_path / "records", **options))
        template = provisioned([(party.name, str(party.role)) for party in loaded.spec.party])
        shutil.copytree(template, tmp_path / "homes")
        for party in loaded.spec.parties:
            records = {"records": {"source": str(tmp_path / "records" / f"{party}.csv")}}
            change_file(tmp_path / "homes" / party / "node.toml", data=records)
        names = [*loaded.spec.parties, COORDINATOR, PartyId("operations")]
        homes = {name: open_home(tmp_path / "homes" / name) for name in names}
        for party in loaded.spec.parties:
            change_policy(homes[party], enforce=loaded.spec.privacy.enforce)
        hub = Hub()
        monkeypatch.setattr(session, "ExchangeLink", lambda settings: MemoryLink(hub, settings))
        return Trial(tmp_path, homes, hub, loaded)

    return make


@pytest.fixture
def production(trial: Callable[..., Trial], tmp_path: Path) -> Callable[..., Trial]:
    """Makes a consortium whose houses run in production: a register each, policies for it, and people who decide.

    A simulation of the same run, which reads the same register, is `Trial.loaded` with another mode.
    """

    def make(**options: Any) -> Trial:
        options.setdefault("rows", 1200)
        given = dict(options.pop("sections", {}))
        sections = {name: {**PRODUCTION.get(name, {}), **given.get(name, {})} for name in {*PRODUCTION, *given}}
        made = trial(**{**options, "sections": sections})
        write_register(tmp_path / "records" / "register.csv", options["rows"])
        for party in made.spec.parties:
            home = made.home(party).folder
            shutil.copy(tmp_path / "records" / "register.csv", home / "register.csv")
            records = {"source": str(tmp_path / "records" / f"{party}.csv"), "registry": "register.csv"}
            change_file(home / "node.toml", data={"records": records})
            made.change_policy(party, mode="production", any_run=False, enforce=True)
            made.homes[party] = open_home(home)
        return made

    return make


@pytest.fixture
def toy(trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """A trial consortium whose roles say nothing to each other: sessions in no time, for all that is around roles."""

    async def nothing(*_: Any) -> None:
        return

    async def reads(node: Any, _: Any) -> None:
        assert node._table

    def write(node: Any, _result: Any, _started: float) -> None:
        node._files.json(f"model/{node._party}/toy.json", {"secret": node._secret.hex()})
        node._files.json("summary.json", {"model_digest": node._secret.hex()})

    monkeypatch.setattr(node_session.Node, "_role", reads)
    monkeypatch.setattr(node_session.Node, "_write", write)
    models = {name: replace(model, coordinate=nothing) for name, model in MODEL_RUNS.items()}
    monkeypatch.setattr(coordinator_session, "MODEL_RUNS", models)

    def make(**options: Any) -> Trial:
        options.setdefault("rows", 60)
        return trial(**{**options, "sections": {"network": {"timeout_s": 1.0}, **options.get("sections", {})}})

    return make


def write_register(path: Path, rows: int) -> None:
    """A register of all enterprises of `write_consortium`, and of some that no party knows."""
    ids = [f"E{number:05d}" for number in range(rows + rows // 10)]
    path.write_text("\n".join(["id", *ids, ""]), encoding="utf-8")


def change_policy(home: Home, **changes: Any) -> None:
    """Rewrites some keys of a house's policy."""
    change_file(home.policy, **changes)


def change_file(path: Path, **changes: Any) -> None:
    """Rewrites some keys of a TOML file."""
    content = tomllib.loads(path.read_text("utf-8"))
    path.write_text(tomli_w.dumps({**content, **changes}), encoding="utf-8")

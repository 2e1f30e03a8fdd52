"""A whole trial consortium in one process: real homes, keys, gates and files; the exchange is a function."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedcredit.errors import PeerError
from fedcredit.runtime import coordinator_session, node_session, session
from fedcredit.runtime.exchange_types import Delivery, LinkSettings, Parcel, PeerRestarted, Presence
from fedcredit.runtime.home import Home, open_home
from fedcredit.runtime.proposal import (
    Decision,
    Finished,
    SessionOrder,
    check_finished,
    check_proposal,
    make_proposal,
)
from fedcredit.runtime.provision import provision_local
from fedcredit.runtime.provision_spec import load_consortium
from fedcredit.runtime.session_files import own_approval
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.travel import travelling_json
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

RUN = RunId("ab" * 16)


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
                frame = queue[0]
                if frame.attempt > settings.attempt:
                    link.opened(frame)
                    raise PeerRestarted(frame.sender, frame.attempt)
                queue.pop(0)
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
        with self.hub.lock:
            place = (self.settings.run, self.settings.party)
            if self.hub.links.get(place) is self:
                del self.hub.links[place]

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
                approvals.append(own_approval(home, checked, lambda: ""))
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


@pytest.fixture
def trial(tmp_path: Path, consortium: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """Makes a trial consortium over made-up records."""

    def make(**options: Any) -> Trial:
        options.setdefault("rows", 400)
        config = consortium(tmp_path / "records", **options)
        loaded = load_spec(config)
        members = [
            {
                "name": party.name,
                "role": str(party.role),
                "data": {"records": {"source": str(tmp_path / "records" / party.source)}},
            }
            for party in loaded.spec.party
        ]
        content = {
            "name": "made-up",
            "trial": True,
            "coordinator": {"exchange": "127.0.0.1:9443", "fleet": "127.0.0.1:9444"},
            "member": [*members, {"name": "operations", "kind": "operator"}],
        }
        file = tmp_path / "consortium.toml"
        file.write_text(tomli_w.dumps(content), encoding="utf-8")
        folders = provision_local(load_consortium(file), tmp_path / "homes")
        homes = {name: open_home(folder) for name, folder in folders.items()}
        for party in loaded.spec.parties:
            change_policy(homes[party], enforce=loaded.spec.privacy.enforce)
        hub = Hub()
        monkeypatch.setattr(session, "ExchangeLink", lambda settings: MemoryLink(hub, settings))
        return Trial(tmp_path, homes, hub, loaded)

    return make


def change_policy(home: Home, **changes: Any) -> None:
    """Rewrites some keys of a house's policy."""
    content = tomllib.loads(home.policy.read_text("utf-8"))
    home.policy.write_text(tomli_w.dumps({**content, **changes}), encoding="utf-8")

"""What an auditor at the label holder's house holds against each other: its escrow, and the log of a feature holder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.commitment import check_vector
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.audit import read_entries, verify_directory
from fedcredit.protocol.group_sum.messages import NonceReveal, Request
from fedcredit.protocol.group_sum.replay import rebuild_request
from fedcredit.protocol.group_sum.session import Conversation, Session
from fedcredit.runtime.escrow import read_escrow
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, encode, kind_of

__all__ = ["Evidence", "Rebuilt", "Seen", "gather_evidence"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """A kind of message in one party's log.

    Args:
        log: Whose log.
        event: ``"received"`` or ``"sent"``.
        peer: From whom or to whom.
        kind: Type of the message.
    """

    log: PartyId
    event: str
    peer: PartyId
    kind: type[Message]


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """One request as an honest label holder makes it.

    Args:
        conversation: Whose.
        first: Number of its first vector.
        vectors: Packed, int64 (rows,) each.
        place: Its number among all requests, from 0.
        name: What it asks, for error texts.
    """

    conversation: Conversation
    first: int
    vectors: Sequence[Ints]
    place: int
    name: str


@dataclass(frozen=True)
class Evidence:
    """A run's evidence; its hash chains hold.

    Args:
        loaded: The run's specification.
        holder: The feature holder whose log counts.
        run: Name of the run.
        logs: Entries of every party's log.
        escrow: Entries of the label holder's escrow.
    """

    loaded: LoadedSpec
    holder: PartyId
    run: str
    logs: dict[PartyId, tuple[dict[str, Any], ...]]
    escrow: tuple[dict[str, Any], ...]

    @property
    def leader(self) -> PartyId:
        """The label holder."""
        return self.loaded.spec.label_holder.name

    def received(self, kind: type[Message]) -> Seen:
        """What the holder got from the label holder."""
        return Seen(self.holder, "received", self.leader, kind)

    def digests(self, seen: Seen) -> list[str]:
        """SHA-256 of each such message in order; what a restarted process repeated byte by byte counts once."""
        peer = "sender" if seen.event == "received" else "recipient"
        found = (
            str(entry["body_sha256"])
            for entry in self.logs.get(seen.log, ())
            if (entry["event"], entry.get("kind"), entry.get(peer)) == (seen.event, kind_of(seen.kind), seen.peer)
        )
        return list(dict.fromkeys(found))

    def check_messages(self, seen: Seen, messages: Iterable[Message], *, complete: bool = True) -> int:
        """Holds messages against a log; returns how many there were.

        Args:
            seen: Which messages of the log.
            messages: What they have to be, in order.
            complete: Whether there may be no more of them.

        Raises:
            IntegrityError: naming the first one that differs, is missing or too many.
        """
        logged, kind = self.digests(seen), kind_of(seen.kind)
        count = 0
        for count, message in enumerate(messages, 1):
            if count > len(logged):
                raise IntegrityError("replay.missing", f"the log of {seen.log} has no {kind} number {count}")
            if hashlib.sha256(encode(message)).hexdigest() != logged[count - 1]:
                text = f"{kind} number {count}: not what {seen.log} logged as {seen.event}"
                raise IntegrityError("replay.message", text)
        if complete and len(logged) > count:
            text = f"the log of {seen.log} has {len(logged)} messages {kind}, the label holder's record {count}"
            raise IntegrityError("replay.extra", text)
        return count

    def check_request(self, rebuilt: Rebuilt) -> None:
        """Opens the commitments of a request, then compares its bytes with what the holder logged.

        Raises:
            IntegrityError: naming the vector and the check that failed.
        """
        purpose = rebuilt.conversation.purpose
        seeds = []
        for number, vector in enumerate(rebuilt.vectors, rebuilt.first):
            what = f"vector {number} of {purpose} ({rebuilt.name})"
            seed, commitment = self._opening(purpose, number, what)
            try:
                check_vector(commitment, vector, seed)
            except IntegrityError:
                raise IntegrityError(
                    "replay.vector",
                    f"{what}: the commitment does not open: what was encrypted is not what honest training gives, "
                    "or the seed in the escrow is another",
                ) from None
            seeds.append(seed)
        logged = self.requests
        what = f"vectors {rebuilt.first} to {rebuilt.first + len(seeds) - 1} of {purpose} ({rebuilt.name})"
        if rebuilt.place >= len(logged):
            raise IntegrityError("replay.missing", f"{what}: the log of {self.holder} has no such message")
        body = rebuild_request(rebuilt.conversation, rebuilt.first, rebuilt.vectors, seeds)
        if hashlib.sha256(body).hexdigest() != logged[rebuilt.place]:
            raise IntegrityError("replay.bytes", f"{what}: its bytes are not those that {self.holder} logged")

    @cached_property
    def requests(self) -> list[str]:
        """SHA-256 of each request that the holder logged, in order."""
        return self.digests(self.received(Request))

    def _opening(self, purpose: str, number: int, what: str) -> tuple[bytes, bytes]:
        """Seed and commitment of a vector in the label holder's escrow."""
        found = self._openings.get((purpose, number), set())
        if not found:
            raise IntegrityError("replay.seed", f"{what}: the label holder's escrow has no seed for it")
        if len(found) > 1 or self._bound.get(f"{purpose}/{number}") != next(iter(found))[1]:
            raise IntegrityError("replay.seed", f"{what}: the label holder's escrow contradicts itself")
        seed, commitment = (_plain(text) for text in next(iter(found)))
        return seed, commitment

    @cached_property
    def _openings(self) -> dict[tuple[str, int], set[tuple[str, str]]]:
        found: dict[tuple[str, int], set[tuple[str, str]]] = {}
        for entry in self.escrow:
            if entry.get("what") == "vector":
                key = (str(entry.get("purpose")), int(entry.get("index", -1)))
                found.setdefault(key, set()).add((str(entry.get("seed")), str(entry.get("commitment"))))
        return found

    @cached_property
    def _bound(self) -> dict[str, str]:
        return {str(entry["key"]): str(entry["digest"]) for entry in self.escrow if entry.get("bind") == "asked"}

    @cached_property
    def draws(self) -> bytes:
        """Seed of the label holder's draws.

        Raises:
            IntegrityError: its escrow holds none, or two.
        """
        found = {str(entry.get("seed")) for entry in self.escrow if entry.get("what") == "draws"}
        if len(found) != 1:
            raise IntegrityError(
                "replay.draws", f"the label holder's escrow has {len(found)} seeds of its draws, not 1"
            )
        return _plain(found.pop())

    @cached_property
    def session(self) -> Session:
        """What the parties agreed on, from the label holder's escrow; the holder's log has to confirm it.

        Raises:
            IntegrityError: a nonce is missing, there are two of a party, or another run's.
        """
        spec = self.loaded.spec
        name = spec_digest(spec)
        known = {hashlib.sha256(f"{name}/{run}".encode()).hexdigest() for run in (self.run, "seeded")}
        entries = [entry for entry in self.escrow if entry.get("what") == "nonce"]
        runs = {str(entry.get("run")) for entry in entries}
        nonces = {(PartyId(str(entry.get("party"))), str(entry.get("nonce"))) for entry in entries}
        if sorted(party for party, _ in nonces) != sorted(spec.parties) or len(runs) != 1 or not runs <= known:
            raise IntegrityError(
                "replay.nonces", "the label holder's escrow does not hold one nonce a party of this run"
            )
        session = Session(runs.pop(), spec.crypto.profile, {party: _plain(text) for party, text in nonces})
        own, theirs = (NonceReveal(nonce=session.nonces[party]) for party in (self.leader, self.holder))
        self.check_messages(self.received(NonceReveal), [own])
        self.check_messages(Seen(self.holder, "sent", self.leader, NonceReveal), [theirs])
        return session


def _plain(text: str) -> bytes:
    """32 bytes in hexadecimal."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != SEED_BYTES:
        raise IntegrityError(
            "replay.escrow", "the label holder's escrow is damaged: 32 bytes in hexadecimal are needed"
        )
    return found


def gather_evidence(folder: Path, holder: PartyId) -> Evidence:
    """Reads a run directory and verifies its hash chains.

    Raises:
        SpecError: no run directory, or the party is no feature holder of the run.
        IntegrityError: a chain is broken, or the escrow is missing or damaged.
    """
    if not (folder / "audit").is_dir() or not (folder / "spec.toml").is_file():
        raise SpecError("audit.no-run", f"{folder}: no run directory with spec.toml and an audit folder")
    loaded = load_spec(folder / "spec.toml")
    if loaded.spec.several_banks:
        raise SpecError("replay.banks", f"{folder}: a run of several banks follows from totals, which nobody keeps")
    holders = [party.name for party in loaded.spec.feature_holders]
    if holder not in holders:
        raise SpecError(
            "replay.holder", f"--holder {holder}: no feature holder of this run; name {' or '.join(holders)}"
        )
    verify_directory(folder / "audit")
    logs = {PartyId(path.stem): read_entries(path) for path in sorted((folder / "audit").glob("*.jsonl"))}
    runs = {str(entries[0]["run"]) for entries in logs.values()}
    if holder not in logs or len(runs) != 1:
        raise IntegrityError("replay.log", f"{folder}: no log of {holder}, or logs of several runs")
    leader = loaded.spec.label_holder.name
    path = folder / "escrow" / f"{leader}.jsonl"
    if not path.is_file():
        raise IntegrityError("replay.escrow", f"{folder}: the escrow of {leader} is missing; without it nothing opens")
    return Evidence(loaded, holder, runs.pop(), logs, tuple(read_escrow(path)))

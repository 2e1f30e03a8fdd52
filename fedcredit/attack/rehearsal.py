"""A run of the real roles in memory, in which a party may cheat and a hand may lie on the wire.

Nothing of the protocols is written again here: honest parties run the product's roles over the product's local network,
with its gates, ledgers and encryption. Only what a cheating party does instead is given by the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES, Entropy, SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_tables
from fedcredit.data.register import register_of
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import PeerError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import CapSection, simulation_policy
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.local import LocalNetwork, LocalSettings, Tamper
from fedcredit.runtime.model_run import ModelRun, RunInputs, Seat
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.envelope import Envelope, Route, SigningKey, seal
from fedcredit.wire.message import decode_struct, encode_struct

__all__ = ["Cheat", "Held", "InMemory", "Rehearsal", "Reseal", "draws_of"]

Held = Callable[[Any], NDArray[np.bool_]]

Cheat = Callable[[Channel, Holding, Held], Coroutine[Any, Any, Any]]
"""What a cheating party runs in place of its role."""

Rewrite = Callable[[PartyId, PartyId, str, bytes], bytes | None]
"""(sender, recipient, kind, body) to the body a cheating sender signs instead; None leaves the envelope alone."""


_RUN = RunId("rehearsal")


@dataclass(frozen=True)
class Rehearsal:
    """One run of the spec's model.

    Args:
        loaded: The spec and the folder of its files.
        tables: Every party's records; loaded from the spec's files where not given.
        run: Name of the run; ledgers know runs by it.
        cheats: Roles of the parties that do not follow the protocol.
        tamper: A hand on the wire.
        ledgers: Ledgers that outlive the run.
        timeout_s: Longest idle wait in seconds; the spec's where 0.
        checkpoints: Where parties keep their state; in memory, for this run alone, where not given.
        secrets: What parties keep to themselves; where not given, a fresh secret, an escrow for this run alone, and
            draws that are the same for the same name of a run.
    """

    loaded: LoadedSpec
    tables: Mapping[PartyId, HolderTable] = field(default_factory=dict)
    run: RunId = _RUN
    cheats: Mapping[PartyId, Cheat] = field(default_factory=dict)
    tamper: Tamper | None = None
    ledgers: Mapping[PartyId, Ledger] = field(default_factory=dict)
    timeout_s: float = 0.0
    checkpoints: Mapping[PartyId, Checkpoints] = field(default_factory=dict)
    secrets: Mapping[PartyId, KeptSecrets] = field(default_factory=dict)

    @property
    def model(self) -> ModelRun:
        """Roles and messages of the spec's model."""
        return MODEL_RUNS[self.loaded.spec.run.model]

    @property
    def roster(self) -> dict[PartyId, Role]:
        """Role of every party, the coordinator last."""
        return {**{party.name: party.role for party in self.loaded.spec.party}, COORDINATOR: Role.COORDINATOR}

    def keys(self) -> dict[PartyId, SigningKey]:
        """Every party's signing key: the keys of a rehearsal are no secret, so that a cheat can sign."""
        entropy = _public_keys()
        return {party: SigningKey.generate(entropy) for party in self.roster}

    def network(self) -> LocalNetwork:
        """The wires, not started yet."""
        spec, roster = self.loaded.spec, self.roster
        privacy = spec.privacy
        caps = CapSection(
            equations=None if privacy.max_equations == "auto" else float(privacy.max_equations),
            bins_returned=None if privacy.max_bins_returned == "auto" else float(privacy.max_bins_returned),
        )
        policies = {
            party: simulation_policy(
                [other for other in roster if other != party],
                [schema.name for schema in self.model.schemas],
                caps=caps,
                enforce=privacy.enforce,
            )
            for party in roster
        }
        return LocalNetwork(
            LocalSettings(
                run=self.run,
                spec_digest=spec_digest(spec),
                roster=roster,
                schemas=self.model.schemas,
                entropy=_public_keys(),
                policies=policies,
                ledgers=self.ledgers,
                timeout_s=self.timeout_s or spec.network.timeout_s,
                tamper=self.tamper,
            )
        )

    def play(self, network: LocalNetwork | None = None) -> dict[PartyId, Any]:
        """Runs every role to its end and returns what each returned.

        Raises:
            FedCreditError: of the role that failed first.
        """
        network = network or self.network()
        try:
            return asyncio.run(network.run_roles(self._roles(network)))
        finally:
            network.close()

    def _roles(self, network: LocalNetwork) -> dict[PartyId, Coroutine[Any, Any, Any]]:
        spec = self.loaded.spec
        tables, register = self.tables or load_tables(self.loaded), register_of(spec, self.loaded.base)
        leader = spec.label_holder.name
        mask = held_out_rows(tables[leader], spec.split, self.loaded.base)
        held = {one for one, test in zip(tables[leader].ids.to_list(), mask, strict=True) if test}
        held_out = partial(_held_out, held)
        seats = {}
        for party in spec.parties:
            keep = self.secrets.get(party) or KeptSecrets(RunSecret.fresh(), draws_of(party, self.run), NoEscrow())
            holding = Holding(spec, f"{spec_digest(spec)}/{self.run}", tables[party], keep, register)
            kept = self.checkpoints.get(party) or InMemory()
            seats[party] = Seat(network.channel(party), holding, kept, _unheard)
        relay = network.channel(COORDINATOR)
        roles = self.model.roles(RunInputs(spec, seats, relay, held_out))
        nothing = Holding(spec, "", tables[leader], KeptSecrets(RunSecret.fresh(), SystemEntropy(), NoEscrow()))
        for party, cheat in self.cheats.items():
            roles[party].close()
            seat = seats.get(party)
            channel, holding = (seat.channel, seat.holding) if seat else (relay, nothing)
            roles[party] = cheat(channel, holding, held_out)
        return roles


class InMemory:
    """Checkpoints that last as long as this object."""

    def __init__(self) -> None:
        self.state: bytes | None = None

    def load(self) -> bytes | None:
        """The state saved last."""
        return self.state

    def save(self, state: bytes) -> None:
        """Replaces the state."""
        self.state = state


class Reseal:
    """A cheating party as a hand on the wire: its messages are rewritten and signed with its own key.

    Args:
        keys: Of the parties that cheat.
        rewrite: What they send instead.
    """

    def __init__(self, keys: Mapping[PartyId, SigningKey], rewrite: Rewrite) -> None:
        self._keys, self._rewrite = dict(keys), rewrite

    def __call__(self, sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        """The envelope that is delivered."""
        if sender not in self._keys:
            return (data,)
        envelope = decode_struct(Envelope, data, f"an envelope of {sender}")
        body = self._rewrite(sender, recipient, kind, envelope.body)
        if body is None:
            return (data,)
        if encode_struct(envelope) != data:
            raise PeerError("wire.not-canonical", f"an envelope of {sender} is not in canonical form")
        route = Route(envelope.run, envelope.protocol, envelope.stage, sender, recipient, envelope.sequence)
        return (seal(self._keys[sender], route, kind, body),)


def draws_of(party: PartyId, run: RunId) -> Entropy:
    """A party's source of noise and order in a rehearsal: another one for every party and run."""
    return UnsafeSeededEntropy(bytes(SEED_BYTES)).child(f"{run}/{party}")


def _unheard(done: int, total: int, note: str) -> None:
    """Nobody watches a rehearsal."""


def _held_out(held: set[str], ids: Any) -> NDArray[np.bool_]:
    return np.fromiter((one in held for one in ids), dtype=np.bool_, count=len(ids))


def _public_keys() -> UnsafeSeededEntropy:
    return UnsafeSeededEntropy(bytes(SEED_BYTES)).child("rehearsal/keys")

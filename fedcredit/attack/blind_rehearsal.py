"""A blind alignment alone, of the real roles over the product's local network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import SEED_BYTES, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.align.blind_coordinator import relay_blind
from fedcredit.protocol.align.blind_feature_holder import align_blind_holder
from fedcredit.protocol.align.blind_inputs import BlindInputs
from fedcredit.protocol.align.blind_label_holder import DecoySource, align_blind_leader
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.messages import SCHEMA
from fedcredit.runtime.local import LocalNetwork, LocalSettings, Tamper
from fedcredit.types import COORDINATOR, PartyId, Role, RunId
from fedcredit.wire.envelope import SigningKey

__all__ = ["BlindRehearsal"]

_RUN = RunId("rehearsal")


@dataclass(frozen=True)
class BlindRehearsal:
    """One alignment.

    Args:
        lists: Ids of every party's table; the label holder comes first.
        register: Public ids.
        decoys: Decoys for each customer.
        min_overlap: Floor.
        ids: How ids are read.
        run: Name of the run.
        oversample: Candidates for each decoy.
        decoy_key: The label holder's key of decoys.
        secrets: Run secrets; those left out are fresh.
        ledgers: Ledgers that outlive the run.
        tamper: A hand on the wire.
        held_out: Says which ids are test rows; every fifth where not given.
        cheats: What parties run in place of their roles.
        timeout_s: Longest idle wait in seconds.
    """

    lists: Mapping[PartyId, Sequence[str]]
    register: Sequence[str] = ()
    decoys: float = 1.0
    min_overlap: int = 1
    ids: Literal["text", "uscc"] = "text"
    run: RunId = _RUN
    oversample: float = 2.0
    decoy_key: bytes = bytes(SEED_BYTES)
    secrets: Mapping[PartyId, RunSecret] = field(default_factory=dict)
    ledgers: Mapping[PartyId, Ledger] = field(default_factory=dict)
    tamper: Tamper | None = None
    held_out: Callable[[Sequence[str]], NDArray[np.bool_]] | None = None
    cheats: Mapping[PartyId, Callable[..., Coroutine[Any, Any, Any]]] = field(default_factory=dict)
    timeout_s: float = 5.0

    @property
    def parties(self) -> tuple[PartyId, ...]:
        """The label holder, then the feature holders."""
        return tuple(self.lists)

    def keys(self) -> dict[PartyId, SigningKey]:
        """Every party's signing key: the keys of a rehearsal are no secret, so that a cheat can sign."""
        entropy = _public_keys()
        return {party: SigningKey.generate(entropy) for party in self._roster()}

    def _roster(self) -> dict[PartyId, Role]:
        leader, *holders = self.parties
        return {
            leader: Role.LABEL_HOLDER,
            **dict.fromkeys(holders, Role.FEATURE_HOLDER),
            COORDINATOR: Role.COORDINATOR,
        }

    def network(self) -> LocalNetwork:
        """The wires, not started yet."""
        return LocalNetwork(
            LocalSettings(
                run=self.run,
                spec_digest="0" * 64,
                roster=self._roster(),
                schemas=(SCHEMA,),
                entropy=_public_keys(),
                ledgers=self.ledgers,
                timeout_s=self.timeout_s,
                tamper=self.tamper,
            )
        )

    def inputs(self, party: PartyId) -> BlindInputs:
        """What a party brings."""
        return BlindInputs(
            parties=self.parties,
            run_digest=f"spec/{self.run}",
            own_ids=self.lists[party],
            ids=self.ids,
            secret=self.secrets.get(party) or RunSecret.fresh(),
            data_version="data",
            decoys=self.decoys,
            min_overlap=self.min_overlap,
        )

    def play(self, network: LocalNetwork | None = None) -> dict[PartyId, RowIndex]:
        """Runs every role to its end and returns every party's rows.

        Raises:
            FedCreditError: of the role that failed first.
        """
        network = network or self.network()
        try:
            found = asyncio.run(network.run_roles(self._roles(network)))
        finally:
            network.close()
        return {party: found[party] for party in self.parties}

    def _roles(self, network: LocalNetwork) -> dict[PartyId, Coroutine[Any, Any, Any]]:
        leader, *holders = self.parties
        source = DecoySource(self.register, self.decoy_key, self.oversample) if self.register else None
        lead = self.cheats.get(leader, align_blind_leader)
        relay = self.cheats.get(COORDINATOR, relay_blind)
        return {
            leader: lead(network.channel(leader), self.inputs(leader), self.held_out or _every_fifth, source),
            **{
                party: self.cheats.get(party, align_blind_holder)(network.channel(party), self.inputs(party))
                for party in holders
            },
            COORDINATOR: relay(network.channel(COORDINATOR), self.parties, self.min_overlap),
        }


def _every_fifth(ids: Sequence[str]) -> NDArray[np.bool_]:
    ranks = np.argsort(np.argsort(np.array(ids)))
    return np.asarray(ranks % 5 == 0)


def _public_keys() -> UnsafeSeededEntropy:
    return UnsafeSeededEntropy(bytes(SEED_BYTES)).child("rehearsal/keys")

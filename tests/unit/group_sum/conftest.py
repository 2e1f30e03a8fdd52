"""Conversations of group sums over the product's local network: one asker, two answerers, all content known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.packing import Field
from fedcredit.crypto.prg import SystemEntropy, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.answerer import GroupSumAnswerer
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.messages import SCHEMA
from fedcredit.protocol.group_sum.session import Conversation, Escrow, KeptSecrets, agree
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.local import LocalNetwork, LocalSettings, Tamper
from fedcredit.types import PartyId, Role, RunId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
ROSTER = {BANK: Role.LABEL_HOLDER, TAX: Role.FEATURE_HOLDER, UTILITY: Role.FEATURE_HOLDER}
RUN_DIGEST = "run"

Ask = Callable[[GroupSumAsker, KeptSecrets], Coroutine[Any, Any, Any]]
Answer = Callable[[GroupSumAnswerer, PartyId], Coroutine[Any, Any, Any]]


def keep(number: int, escrow: Escrow | None = None) -> KeptSecrets:
    """Secrets of a party that follow from a number."""
    return KeptSecrets(RunSecret(bytes([number]) * 32), UnsafeSeededEntropy(bytes(32)), escrow or NoEscrow())


@dataclass(frozen=True)
class Scene:
    """Who holds what.

    Args:
        profile: Encryption profile.
        batches: Fields of each batch.
        bins: Bins of each feature of both answerers.
        rows: Number of rows.
        keeps: Secrets of each party.
        tamper: A hand on the wire.
    """

    profile: str = "rlwe-8192"
    batches: tuple[tuple[Field, ...], ...] = ((Field(100),),)
    bins: tuple[int, ...] = (3, 4)
    rows: int = 60
    keeps: Mapping[PartyId, KeptSecrets] = field(
        default_factory=lambda: {party: keep(number) for number, party in enumerate(ROSTER)}
    )
    tamper: Tamper | None = None

    def codes(self, party: PartyId) -> NDArray[np.int32]:
        """Bins of every row, other ones for each answerer; every bin has a row."""
        shift = list(ROSTER).index(party)
        rows = np.arange(self.rows)
        return np.column_stack([(rows * (shift + 1) + rows // 7) % bins for bins in self.bins]).astype(np.int32)

    def columns(self, count: int, seed: int = 0) -> list[NDArray[np.int64]]:
        """Values in the bounds of the default fields."""
        generator = np.random.default_rng(seed)
        return [generator.integers(-100, 101, self.rows) for _ in range(count)]

    def sums(self, party: PartyId, column: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the answer to a column must be."""
        codes = self.codes(party)
        parts = [np.bincount(codes[:, f], column, bins) for f, bins in enumerate(self.bins)]
        return np.concatenate(parts).astype(np.int64)

    def play(self, ask: Ask, answer: Answer) -> tuple[Any, LocalNetwork]:
        """Runs agreement, opening and what is given; returns what the asker's part returned, and the network."""
        network = LocalNetwork(
            LocalSettings(RunId("talk"), "digest", ROSTER, [SCHEMA], SystemEntropy(), timeout_s=5, tamper=self.tamper)
        )
        roles = {
            BANK: self._bank(network.channel(BANK), ask),
            **{party: self._holder(network.channel(party), answer) for party in (TAX, UTILITY)},
        }
        try:
            return asyncio.run(network.run_roles(roles))[BANK], network
        finally:
            network.close()

    async def _conversation(self, channel: Channel) -> Conversation:
        session = await agree(channel, list(ROSTER), RUN_DIGEST, self.profile, self.keeps[channel.party])
        return Conversation(session, "talk", self.batches, self.rows)

    async def _bank(self, channel: Channel, ask: Ask) -> Any:
        conversation = await self._conversation(channel)
        shape = Expected(tuple((f"F{f}", bins) for f, bins in enumerate(self.bins)))
        kept = self.keeps[BANK]
        asker = await GroupSumAsker.open(channel, conversation, {TAX: shape, UTILITY: shape}, kept)
        return await ask(asker, kept)

    async def _holder(self, channel: Channel, answer: Answer) -> None:
        conversation = await self._conversation(channel)
        grouping = Grouping(self.codes(channel.party), self.bins)
        answerer = await GroupSumAnswerer.open(channel, conversation, BANK, grouping, self.keeps[channel.party])
        await answer(answerer, channel.party)


@pytest.fixture
def scene() -> type[Scene]:
    return Scene


@pytest.fixture
def keeping() -> Callable[..., KeptSecrets]:
    return keep

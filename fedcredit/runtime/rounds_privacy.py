"""A bank's role in averaging, with its privacy ledger: what it brings to a sum is on the books before it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fedcredit.governance.privacy_account import PrivacyAccount
from fedcredit.protocol.secure_sum.messages import Contribution
from fedcredit.runtime.rounds import RoundBank
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, encode

__all__ = ["AccountedBank", "StagedBank"]


class StagedBank(RoundBank, Protocol):
    """A role that says which sum it is at."""

    @property
    def stage(self) -> str:
        """``exponents``, ``moments``, ``round/R``, ``judge``, ``score`` or ``finished``."""
        ...


class AccountedBank:
    """A role whose releases are booked.

    Args:
        inner: The role.
        account: The run in the house's privacy ledger.

    Raises:
        PolicyDenied: the house asks for another unit.
        DisclosureRefused: the run would pass a limit; the text says how many rounds would fit.
    """

    def __init__(self, inner: StagedBank, account: PrivacyAccount) -> None:
        self.inner, self._account = inner, account
        account.begin()

    def answer(self, messages: Sequence[Message]) -> Sequence[tuple[PartyId, Message]]:
        """One visit of the role.

        Raises:
            DisclosureRefused: it would release more than was planned.
            FedCreditError: as the role.
        """
        out = self.inner.answer(messages)
        for _, message in out:
            if isinstance(message, Contribution):
                self._account.release(self.inner.stage, encode(message))
        return out

    def state(self) -> bytes:
        """As the role."""
        return self.inner.state()

    @property
    def finished(self) -> bool:
        """As the role."""
        return self.inner.finished

"""A bank's role with its house's privacy ledger beside it: nothing of the rows leaves that is not booked before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fedcredit.governance.privacy_account import PrivacyAccount
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.protocol.secure_sum.messages import Contribution
from fedcredit.runtime.rounds.model import BankSeat
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, encode

__all__ = ["BookedBank", "account_of"]


class _Staged(Protocol):
    """A role that says where it is."""

    def answer(self, messages: Sequence[Message]) -> Sequence[tuple[PartyId, Message]]: ...

    def state(self) -> bytes: ...

    @property
    def finished(self) -> bool: ...

    @property
    def stage(self) -> str: ...


def account_of(seat: BankSeat, ledger: PrivacyLedger) -> PrivacyAccount:
    """A run in the privacy ledger of a bank."""
    own = seat.tables.own
    return PrivacyAccount(ledger, seat.spec, seat.run, own.digest, seat.tables.rows_train)


class BookedBank:
    """A bank's role whose contributions are booked before they leave.

    Args:
        bank: The role.
        account: The run in its house's ledger.
        begins: Whether this is the bank's first visit: the whole run is reserved then, or refused.

    Raises:
        PolicyDenied: the house wants another unit of protection.
        DisclosureRefused: the run would pass the house's or the spec's limit; the text says how many rounds would fit.
    """

    def __init__(self, bank: _Staged, account: PrivacyAccount, *, begins: bool) -> None:
        self.bank, self._account = bank, account
        if begins:
            account.begin()

    def answer(self, messages: Sequence[Message]) -> Sequence[tuple[PartyId, Message]]:
        """As the role's own; raises DisclosureRefused where more would leave than was planned."""
        out = self.bank.answer(messages)
        for _, message in out:
            if isinstance(message, Contribution):
                self._account.release(self.bank.stage, encode(message))
        return out

    def state(self) -> bytes:
        """As the role's own."""
        return self.bank.state()

    @property
    def finished(self) -> bool:
        """As the role's own."""
        return self.bank.finished

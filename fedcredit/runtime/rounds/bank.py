"""A bank's part in runs that go round by round: one visit is a question of envelopes and an answer of envelopes.

A visit may be the whole life of a process. So everything a bank has to remember is one file that is replaced as a whole
before the answer leaves: the state of its role, where its gate stands, and the answer itself. The same question again
gives the same bytes again; another one under the same number is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec

from fedcredit.errors import IntegrityError, PeerError, PolicyDenied
from fedcredit.governance.gate import Gate, House, Place, RunContext
from fedcredit.protocol.checkpoint import Checkpoints
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import Digest, Message, Name, Part, decode_struct, encode_struct, kind_of
from fedcredit.wire.schema import RunSchema

__all__ = [
    "MAX_VISIT",
    "Letter",
    "RoundBank",
    "RoundHouse",
    "VisitAnswer",
    "VisitQuestion",
    "letter_kind",
    "stage_of",
]

MAX_VISIT = (1 << 29) + (1 << 21)
"""Most bytes of a question or an answer: the longest message of any run, and lists of banks. Reading one takes four
times its size in memory."""

_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Run = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]


class RoundBank(Protocol):
    """A bank's role, one visit at a time; knows nothing of envelopes, files and lines."""

    def answer(self, messages: Sequence[Message]) -> Sequence[tuple[PartyId, Message]]:
        """Takes what came and says what goes."""
        ...

    def state(self) -> bytes:
        """Everything it needs to go on in another process."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it has its model."""
        ...


class Letter(Part, frozen=True, kw_only=True):
    """An envelope, and what its reader is to expect in it; the envelope alone is believed.

    Attributes:
        kind: Kind of the message.
        data: Signed envelope.
    """

    kind: Name
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_VISIT)]


class VisitQuestion(Part, frozen=True, kw_only=True):
    """What a bank is asked in one visit.

    Attributes:
        run: Name of the run.
        number: Of the visit at this bank, from 1.
        letters: From the coordinator, in order.
    """

    run: _Run
    number: _Number
    letters: list[Letter]


class VisitAnswer(Part, frozen=True, kw_only=True):
    """What a bank says in one visit.

    Attributes:
        party: Who.
        number: Of the visit.
        letters: To the coordinator, in order.
        finished: Whether the bank has its model and waits for nothing more.
    """

    party: Name
    number: _Number
    letters: list[Letter]
    finished: bool


class _Kept(Part, frozen=True, kw_only=True):
    """What a bank keeps between two visits."""

    number: _Number
    question: Digest
    answer: bytes
    state: bytes
    sent: dict[str, int]
    received: dict[str, int]
    kinds: dict[str, int]
    bytes_sent: int


def stage_of(number: int) -> str:
    """Stage of all envelopes of a visit: one that is played again in another visit is refused."""
    return f"visit-{number}"


def letter_kind(schema: RunSchema, letter: Letter, sender: PartyId) -> type[Message]:
    """The message a letter says it holds; the gate sees whether it does.

    Raises:
        PeerError: no message of the run.
    """
    found = schema.index().get(letter.kind)
    if found is None:
        raise PeerError("visit.kind", f"{sender} sent a message that this run does not have", culprit=sender)
    return found[1].message


@dataclass(frozen=True)
class _Mind:
    """The role in memory and where its gate stands, after a visit."""

    number: int
    question: str
    answer: bytes
    place: Place
    bank: RoundBank


class RoundHouse:
    """One bank in one run of rounds.

    Args:
        context: The run.
        house: The bank: its key, policy, ledger and audit log.
        checkpoints: Keeps what lies between two visits.
        make_bank: The role, from its state, or from None where it begins.
    """

    def __init__(
        self,
        context: RunContext,
        house: House,
        checkpoints: Checkpoints,
        make_bank: Callable[[bytes | None], RoundBank],
    ) -> None:
        self._context, self._house = context, house
        self._checkpoints, self._make = checkpoints, make_bank
        self._mind: _Mind | None = None
        self._known = False

    def visit(self, raw: bytes) -> bytes:
        """Answers one question.

        Args:
            raw: Bytes of a `VisitQuestion`.

        Returns:
            Bytes of a `VisitAnswer`; the same for the same question.

        Raises:
            PeerError: malformed, of another run, out of turn, changed, or with an envelope that does not verify.
            FedCreditError: of the role, or of this house's gate.
        """
        if len(raw) > MAX_VISIT:
            raise PeerError("visit.oversize", f"a visit of {len(raw)} bytes, at most {MAX_VISIT}")
        question, digest = decode_struct(VisitQuestion, raw, "a visit"), hashlib.sha256(raw).hexdigest()
        if question.run != self._context.run:
            raise PeerError("visit.run", "a visit of another run")
        before = self._before()
        if before is not None and question.number == before.number:
            if digest != before.question:
                raise PeerError("visit.changed", f"visit {question.number} was another one before")
            return before.answer
        due = 1 if before is None else before.number + 1
        if question.number != due:
            raise PeerError("visit.number", f"visit {question.number} where visit {due} is due")
        self._known = False  # an error in between leaves what is on the disk
        self._mind = self._answered(question, digest, before)
        self._known = True
        return self._mind.answer

    @property
    def bank(self) -> RoundBank:
        """The role as the last visit left it.

        Raises:
            IntegrityError: it was never visited.
        """
        before = self._before()
        if before is None:
            raise IntegrityError("visit.none", f"{self._house.party} has no state of this run")
        return before.bank

    def _before(self) -> _Mind | None:
        if not self._known:
            self._mind, self._known = self._recalled(), True
        return self._mind

    def _recalled(self) -> _Mind | None:
        data = self._checkpoints.load()
        if data is None:
            return None
        try:
            kept = decode_struct(_Kept, data, "what this bank keeps between visits")
        except PeerError as error:
            raise IntegrityError("visit.state", "the state of this run is damaged", error.public) from None
        place = Place(
            {PartyId(party): count for party, count in kept.sent.items()},
            {PartyId(party): count for party, count in kept.received.items()},
            kept.kinds,
            kept.bytes_sent,
        )
        return _Mind(kept.number, kept.question, kept.answer, place, self._make(kept.state))

    def _answered(self, question: VisitQuestion, digest: str, before: _Mind | None) -> _Mind:
        number, stage, party = question.number, stage_of(question.number), self._house.party
        gate = Gate(self._context, self._house, place=None if before is None else before.place)
        bank = self._make(None) if before is None else before.bank
        self._house.audit.append("stage", {"stage": stage})
        kinds = [letter_kind(self._context.schema, letter, COORDINATOR) for letter in question.letters]
        messages = [
            gate.admit(letter.data, COORDINATOR, stage, kind)
            for letter, kind in zip(question.letters, kinds, strict=True)
        ]
        letters = []
        for to, message in bank.answer(messages):
            if to != COORDINATOR:
                raise PolicyDenied("visit.recipient", f"a visit has answers for the coordinator, none for {to}")
            letters.append(Letter(kind=kind_of(message), data=gate.release(to, message, stage).data))
        answer = encode_struct(VisitAnswer(party=party, number=number, letters=letters, finished=bank.finished))
        mind = _Mind(number, digest, answer, gate.place, bank)
        self._keep(mind)
        return mind

    def _keep(self, mind: _Mind) -> None:
        place = mind.place
        kept = _Kept(
            number=mind.number,
            question=mind.question,
            answer=mind.answer,
            state=mind.bank.state(),
            sent={str(party): count for party, count in place.sent.items()},
            received={str(party): count for party, count in place.received.items()},
            kinds=dict(place.kinds),
            bytes_sent=place.bytes,
        )
        self._checkpoints.save(encode_struct(kept))

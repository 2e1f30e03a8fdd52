"""The coordinator's part in runs that go round by round: all banks at once, who stays away is left out and named.

It knows nothing of models or Flower: a relay (`RoundRelay`) says what goes to whom, and something that carries bytes
(`Visit`) brings each question to a bank and its answer back. Every step is written down before it is used, so that a
process that dies is followed by one that asks the same questions again, byte by byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fedcredit.errors import FedCreditError, IntegrityError, PeerError, TransportError
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import Gate, House, RunContext
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.rounds.bank import MAX_VISIT, Letter, VisitAnswer, VisitQuestion, letter_kind, stage_of
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import Message, Part, decode_struct, encode_struct, kind_of

__all__ = ["FileSteps", "Lost", "RoundDriver", "RoundLimits", "RoundRelay", "Step", "Steps", "Taken", "Visit"]

_DIGEST_BYTES = 32
_PAUSE_MOST_S = 30.0

Visit = Callable[[PartyId, bytes], Awaitable[bytes]]
"""Brings a question to a bank and gives its answer.

Raises TransportError where asking again may help, and another FedCreditError where it does not.
"""

Outgoing = Mapping[PartyId, Sequence[Message]]


class RoundRelay(Protocol):
    """The coordinator's role: what goes to whom after what came; it cannot read what it carries."""

    def start(self) -> Outgoing:
        """The first questions."""
        ...

    def arrived(self, messages: Outgoing) -> Outgoing:
        """The next questions, after the answers of all who were asked and are not missing."""
        ...

    def missing(self, parties: Sequence[PartyId]) -> None:
        """Goes on without some banks from the answers on that `arrived` gets next; raises where too few are left."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be asked once the last questions are answered."""
        ...


@dataclass(frozen=True)
class RoundLimits:
    """Waits, in seconds.

    Args:
        round_s: For one bank's answer; after that the others go on without it.
        again_s: Between two tries at a bank that is out of reach; longer each time.
    """

    round_s: float = 600.0
    again_s: float = 2.0


@dataclass(frozen=True)
class Lost:
    """A bank that the others went on without.

    Args:
        party: Which.
        step: At which step, from 1.
        code: Why.
        text: Why, public.
    """

    party: PartyId
    step: int
    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.party}: {self.text} [{self.code}]"


@dataclass(frozen=True)
class Taken:
    """A step that was taken.

    Args:
        number: From 1.
        seconds: It took.
        answered: Banks whose answers count.
        lost: Banks that were left out at this step.
    """

    number: int
    seconds: float
    answered: tuple[PartyId, ...]
    lost: tuple[Lost, ...]


class _Absent(Part, frozen=True, kw_only=True):
    party: str
    code: str
    text: str


class Step(Part, frozen=True, kw_only=True):
    """What came of one step's questions.

    Attributes:
        answers: Bytes of a `VisitAnswer` by party.
        absent: Who gave none, and why.
    """

    answers: dict[str, bytes]
    absent: list[_Absent]


class Steps(Protocol):
    """What earlier processes of this run have heard, in order."""

    def read(self) -> Sequence[Step]:
        """All steps."""
        ...

    def add(self, step: Step) -> None:
        """One more; durable when this returns."""
        ...


class FileSteps:
    """Steps as files of a folder, one each.

    Args:
        folder: Where; made with mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def read(self) -> Sequence[Step]:
        """See `Steps`.

        Raises:
            IntegrityError: a file is damaged.
        """
        found: list[Step] = []
        while (path := self._place(len(found) + 1)).exists():
            data = path.read_bytes()
            if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
                raise IntegrityError("rounds.step", f"step {len(found) + 1} of this run is damaged; it cannot go on")
            found.append(decode_struct(Step, data[_DIGEST_BYTES:], "a step"))
        self._count = len(found)
        return found

    def add(self, step: Step) -> None:
        """See `Steps`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = encode_struct(step)
        self._count += 1
        replace_file(self._place(self._count), hashlib.sha256(data).digest() + data)

    def _place(self, number: int) -> Path:
        return self._folder / f"step-{number:06d}"


@dataclass
class _Asked:
    """One step's questions."""

    number: int
    questions: dict[PartyId, bytes]
    at: dict[PartyId, int] = field(default_factory=dict)


class RoundDriver:
    """Drives all rounds of one run.

    Args:
        context: The run.
        house: The coordinator.
        relay: Its role.
        visit: Carries questions.
        limits: Waits.
    """

    def __init__(
        self, context: RunContext, house: House, relay: RoundRelay, visit: Visit, limits: RoundLimits | None = None
    ) -> None:
        self._context, self._house, self._relay, self._visit = context, house, relay, visit
        self._limits = limits or RoundLimits()
        self._gate = Gate(context, house)
        self._visits: dict[PartyId, int] = {}
        self._step = 0
        self.lost: list[Lost] = []
        self.done: set[PartyId] = set()

    async def through(self, steps: Steps | None = None, listen: Callable[[Taken], None] | None = None) -> None:
        """Goes on until the relay has finished and everyone has heard its last word.

        Args:
            steps: What processes before this one have heard; None = nothing is kept.
            listen: Told each step.

        Raises:
            FedCreditError: of the relay: too few banks are left, and who is missing and why.
        """
        house, before = self._house, steps.read() if steps is not None else []
        if before:  # what was sent stands in the audit log already
            memory = AuditLog(None, house.party, self._context.run, house.clock)
            self._gate = Gate(self._context, replace(house, audit=memory))
        following = self._relay.start()
        for step in before:
            following = self._heard(self._asked(following), step)[0]
        if before:
            self._gate = Gate(self._context, house, place=self._gate.place)
        asked = self._asked(following)  # logged again: the process before may have died before it had
        while asked.questions:
            began = time.perf_counter()
            step = await self._ask_all(asked)
            if steps is not None:
                steps.add(step)
            following, answered, lost = self._heard(asked, step)
            if listen is not None:
                listen(Taken(asked.number, time.perf_counter() - began, answered, lost))
            asked = self._asked(following)
        if not self._relay.finished:
            raise PeerError("rounds.silent", "the relay asks nothing more and has not finished")

    def _asked(self, out: Outgoing) -> _Asked:
        """Questions from messages; each bank's carry the number of its visit."""
        self._step += 1
        asked = _Asked(self._step, {})
        gone = {one.party for one in self.lost}
        for party, messages in out.items():
            if party in gone or (self._relay.finished and not messages):
                continue
            number = self._visits.get(party, 0) + 1
            letters = [
                Letter(kind=kind_of(one), data=self._gate.release(party, one, stage_of(number)).data)
                for one in messages
            ]
            self._visits[party] = asked.at[party] = number
            question = VisitQuestion(run=self._context.run, number=number, letters=letters)
            asked.questions[party] = encode_struct(question)
        return asked

    async def _ask_all(self, asked: _Asked) -> Step:
        tasks = {
            party: asyncio.create_task(self._ask(party, question), name=party)
            for party, question in asked.questions.items()
        }
        try:
            found = dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        answers = {str(party): one for party, one in found.items() if isinstance(one, bytes)}
        return Step(answers=answers, absent=[one for one in found.values() if isinstance(one, _Absent)])

    async def _ask(self, party: PartyId, question: bytes) -> bytes | _Absent:
        """A bank's answer; it is asked again while it is out of reach and there is time."""
        limits, why = self._limits, ""
        pause = limits.again_s
        try:
            async with asyncio.timeout(limits.round_s):
                while True:
                    try:
                        return await self._visit(party, question)
                    except TransportError as error:
                        why = f"; last: {error.public} [{error.code}]"
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _PAUSE_MOST_S)
        except TimeoutError:
            return _Absent(party=party, code="rounds.late", text=f"no answer within {limits.round_s:g} s{why}")
        except FedCreditError as error:
            return _Absent(party=party, code=error.code, text=error.public)

    def _heard(self, asked: _Asked, step: Step) -> tuple[Outgoing, tuple[PartyId, ...], tuple[Lost, ...]]:
        """Lets the answers in, and asks the relay what comes next."""
        messages: dict[PartyId, Sequence[Message]] = {}
        lost = [Lost(PartyId(one.party), asked.number, one.code, one.text) for one in step.absent]
        for name, raw in step.answers.items():
            party = PartyId(name)
            try:
                messages[party] = self._admitted(party, asked, raw)
            except FedCreditError as error:
                lost.append(Lost(party, asked.number, error.code, error.public))
        self.lost += lost
        try:
            if lost:
                self._relay.missing([one.party for one in lost])
            following = self._relay.arrived(messages)
        except FedCreditError as error:
            raise self._named(error) from None
        return following, tuple(messages), tuple(lost)

    def _admitted(self, party: PartyId, asked: _Asked, raw: bytes) -> list[Message]:
        number = asked.at.get(party)
        if number is None:
            raise PeerError("rounds.unasked", f"{party} answers a question that it was not asked", culprit=party)
        if len(raw) > MAX_VISIT:
            raise PeerError("visit.oversize", f"an answer of {len(raw)} bytes, at most {MAX_VISIT}", culprit=party)
        answer = decode_struct(VisitAnswer, raw, f"an answer of {party}")
        if (answer.party, answer.number) != (party, number):
            raise PeerError("rounds.answer", f"{party} answers another visit than {number}", culprit=party)
        stage, schema = stage_of(number), self._context.schema
        found: list[Message] = [
            self._gate.admit(one.data, party, stage, letter_kind(schema, one, party)) for one in answer.letters
        ]
        if answer.finished:
            self.done.add(party)
        return found

    def _named(self, error: FedCreditError) -> FedCreditError:
        """An error of the relay, with the banks that were lost before it: they may be the reason."""
        if not self.lost:
            return error
        who = "; ".join(map(str, self.lost))
        text = f"{error.public}; missing: {who}"[:1000]
        return type(error)(error.code, text, error.detail, culprit=error.culprit or COORDINATOR)

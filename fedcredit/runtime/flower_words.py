"""What a Flower message of a run says, both ways: a few keys in one record, no protocol in it.

Question: ``run`` (its name), ``payload`` (for the node's worker), ``hold_s`` (how long the node may keep the message
while a session goes on). Answer: ``party`` (who answers), ``state`` (done, running, failed), ``payload`` (the worker's
answer), ``code`` and ``text`` (public), ``again`` (asking again may help).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.runtime.daemon.worker_process import MAX_ANSWER, public_error
from fedcredit.types import RunId

__all__ = ["ACTIONS", "RECORD", "Answer", "AnswerState", "Question", "Word", "Words", "failure"]

Word = bool | int | float | str | bytes
Words = dict[str, Word]

RECORD: Final = "fedcredit"
"""Name of the record in the message."""

ACTIONS: Final[Mapping[str, str]] = {
    "propose": "query.propose",
    "session": "train.session",
    "visit": "train.visit",
}
"""Flower's type of message by what is asked."""

_MOST_HOLD_S = 60.0  # a node's other runs wait as long


class AnswerState(StrEnum):
    """How far a node is with what it was asked."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Question:
    """What a node is asked.

    Args:
        run: Name of the run.
        payload: For the node's worker.
        hold_s: How long the node may keep the message, 0 to 60 s.
    """

    run: RunId
    payload: bytes
    hold_s: float = 0.0

    def words(self) -> Words:
        """As a record."""
        return {"run": str(self.run), "payload": self.payload, "hold_s": float(self.hold_s)}

    @classmethod
    def read(cls, words: Mapping[str, object]) -> Question:
        """From a record.

        Raises:
            PeerError: a key is missing or of another kind.
        """
        run, payload, hold = words.get("run"), words.get("payload"), words.get("hold_s")
        if not isinstance(run, str) or not isinstance(payload, bytes) or not isinstance(hold, float):
            raise PeerError("node.question", "the message is not of the form that this version knows")
        if not 0 <= hold <= _MOST_HOLD_S:  # refuses nan too
            raise PeerError("node.question", f"hold_s is to be from 0 to {_MOST_HOLD_S:g}")
        return cls(RunId(run), payload, hold)


@dataclass(frozen=True)
class Answer:
    """What a node says.

    Args:
        party: Who says it.
        state: How far it is.
        payload: The worker's answer, where it is done.
        code: Of a failure.
        text: Of a failure, public.
        again: Whether asking again may help.
    """

    party: str
    state: AnswerState
    payload: bytes = b""
    code: str = ""
    text: str = ""
    again: bool = False

    def words(self) -> Words:
        """As a record."""
        return {
            "party": self.party,
            "state": str(self.state),
            "payload": self.payload,
            "code": self.code,
            "text": self.text,
            "again": self.again,
        }

    @classmethod
    def read(cls, words: Mapping[str, object]) -> Answer:
        """From a record.

        Raises:
            PeerError: a key is missing or of another kind, or the answer is too large.
        """
        party, state, payload = words.get("party"), words.get("state"), words.get("payload")
        code, text, again = words.get("code"), words.get("text"), words.get("again")
        texts = isinstance(party, str) and isinstance(state, str) and isinstance(code, str) and isinstance(text, str)
        if not texts or not isinstance(payload, bytes) or not isinstance(again, bool):
            raise PeerError("node.answer", "its answer is not of the form that this version knows")
        if state not in set(AnswerState):
            raise PeerError("node.answer", "its answer has no state that this version knows")
        if len(payload) > MAX_ANSWER:
            raise PeerError("node.answer", f"its answer has {len(payload)} bytes, at most {MAX_ANSWER}")
        return cls(str(party), AnswerState(str(state)), payload, str(code), str(text), again)

    def error(self) -> FedCreditError:
        """The failure as an error: TransportError where asking again may help."""
        told = public_error(self.code, self.text, "node.failed")
        return TransportError(told.code, told.public) if self.again else told


def failure(party: str, error: FedCreditError) -> Answer:
    """The answer that tells an error; code and public text only."""
    again = isinstance(error, TransportError)
    return Answer(party, AnswerState.FAILED, code=error.code, text=error.public, again=again)

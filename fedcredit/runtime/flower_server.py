"""The driver's courier over Flower messages: which node is which party, one poll for all answers, named outcomes.

Flower is behind `Mail`, which the coordinator's app makes of a Grid, so that this is tested without it. Who a node is
comes from its registered key, compared with the roster; its name and what it says of itself have to agree.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, TypeVar

from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.runtime.daemon.worker_process import public_error
from fedcredit.runtime.flower_words import ACTIONS, Answer, AnswerState, Question
from fedcredit.types import PartyId, RunId

__all__ = ["CourierLimits", "FlowerCourier", "Letter", "Mail", "MailFault", "NodeRow"]

_Result = TypeVar("_Result")
_REASON = re.compile(r"<class '[\w.]+'>:<'(?P<text>.*?)(?: \[(?P<code>[a-z0-9.-]+)\])?'>", re.DOTALL)


class MailFault(IntEnum):
    """Flower's codes of errors in the place of an answer. Source: flwr.common.constant.ErrorCode, 1.41."""

    UNKNOWN = 0
    LOAD_CLIENT_APP_EXCEPTION = 1
    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MOD_FAILED_PRECONDITION = 6
    INVALID_FAB = 7
    CLIENT_APP_CRASHED = 8


_MAY_HELP: Mapping[int, tuple[str, str]] = {
    MailFault.MESSAGE_UNAVAILABLE: ("node.late", "its node did not fetch the message in time"),
    MailFault.REPLY_MESSAGE_UNAVAILABLE: ("node.late", "its node did not answer in time"),
    MailFault.NODE_UNAVAILABLE: ("node.unavailable", "its node is not connected"),
    MailFault.CLIENT_APP_CRASHED: ("node.app-crashed", "the process at its node that handled the message died"),
}


@dataclass(frozen=True)
class NodeRow:
    """A SuperNode that is connected.

    Args:
        node: Flower's number for it.
        name: Under which the coordinator registered it.
        key: Its registered public key, as `Mail.key_of` gives it.
    """

    node: int
    name: str
    key: bytes


@dataclass(frozen=True)
class Letter:
    """An answer, or a fault in the place of one.

    Args:
        reply_to: Message that it answers.
        node: Where it comes from.
        words: The answer's record.
        fault: Flower's code of the error; None for an answer.
        reason: Flower's text of the error.
    """

    reply_to: str
    node: int
    words: Mapping[str, object] = field(default_factory=dict)
    fault: int | None = None
    reason: str = ""


class Mail(Protocol):
    """Flower's message service; its calls block for milliseconds, or longer while the SuperLink is away."""

    def nodes(self) -> Sequence[NodeRow]:
        """All SuperNodes that are connected."""

    def push(self, node: int, kind: str, words: Mapping[str, object], ttl_s: float) -> str:
        """Sends a message; returns its id."""

    def pull(self, messages: Sequence[str]) -> Sequence[Letter]:
        """Answers to messages, those that are there."""

    def key_of(self, line: str) -> bytes:
        """A node's key in Flower's form, from its OpenSSH line."""


@dataclass(frozen=True)
class CourierLimits:
    """Times of the courier, in seconds.

    Args:
        poll_s: Between two looks for answers; a look costs the SuperLink 5 ms.
        start_s: For a message to reach a node's worker and its answer to come back, beside what the node holds it.
        again_s: Between two questions how a session goes, unless it is known to be over.
        after_s: The same, once it is known that the run is over.
        outage_s: Longest outage of the SuperLink that is waited out.
    """

    poll_s: float = 0.25
    start_s: float = 180.0
    again_s: float = 45.0
    after_s: float = 2.0
    outage_s: float = 120.0


class FlowerCourier:
    """Carries a run's questions over Flower.

    Args:
        mail: Flower.
        run: The run.
        keys: Flower key of each party's node, OpenSSH line.
        hold_s: How long nodes may keep a session's message now; a node in several runs is to be held less.
        limits: Times.
    """

    def __init__(
        self,
        mail: Mail,
        run: RunId,
        keys: Mapping[PartyId, str],
        hold_s: Callable[[], float],
        limits: CourierLimits = CourierLimits(),
    ) -> None:
        self._mail, self._run, self._hold_s, self._limits = mail, run, hold_s, limits
        self._parties = {mail.key_of(line): party for party, line in keys.items()}
        self._awaited: dict[str, asyncio.Future[Letter]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._over = asyncio.Event()

    def nudge(self) -> None:
        """Says that the run is over as the coordinator sees it: sessions are asked about at once."""
        self._over.set()

    async def online(self) -> frozenset[PartyId]:
        """Parties whose nodes are connected under the key of the roster and the right name."""
        return frozenset(await self._nodes())

    async def ask(self, party: PartyId, action: str, payload: bytes, timeout_s: float) -> bytes:
        """As `fedcredit.runtime.runs.driver_parts.Courier.ask`; a session is asked about until it has ended."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    hold = self._hold_s() if action == "session" else 0.0
                    question = Question(self._run, payload, hold)
                    # a visit is as long as a bank's work in a round, and is not asked about meanwhile
                    patience = timeout_s if action == "visit" else self._limits.start_s + hold
                    answer = await self._exchange(party, ACTIONS[action], question, patience)
                    if answer.state is AnswerState.DONE:
                        return answer.payload
                    await self._pause()
        except TimeoutError:
            raise TransportError("node.late", f"{party}: no answer within {timeout_s:g} s") from None

    async def _pause(self) -> None:
        if self._over.is_set():
            await asyncio.sleep(self._limits.after_s)
            return
        try:
            await asyncio.wait_for(self._over.wait(), self._limits.again_s)
        except TimeoutError:
            return

    async def _exchange(self, party: PartyId, kind: str, question: Question, patience: float) -> Answer:
        node = (await self._nodes()).get(party)
        if node is None:
            raise TransportError("node.unavailable", "its node is not connected")
        message = await self._call(lambda: self._mail.push(node, kind, question.words(), patience))
        awaited = self._awaited[message] = asyncio.get_running_loop().create_future()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            letter = await asyncio.wait_for(awaited, patience)
        except TimeoutError:
            raise TransportError("node.late", f"no answer within {patience:g} s") from None
        finally:
            self._awaited.pop(message, None)
        if letter.fault is not None:
            raise _named(letter)
        return _believed(party, node, letter)

    async def _nodes(self) -> dict[PartyId, int]:
        rows = await self._call(self._mail.nodes)
        found = {self._parties.get(row.key): row for row in rows}
        return {party: row.node for party, row in found.items() if party is not None and row.name == party}

    async def _poll(self) -> None:
        """Looks for all awaited answers at once, until none is awaited; what nobody awaits is dropped."""
        silent_since: float | None = None
        while self._awaited:
            await asyncio.sleep(self._limits.poll_s)
            wanted = tuple(self._awaited)
            try:
                letters = await self._call(lambda wanted=wanted: self._mail.pull(wanted))  # type: ignore[misc]
            except TransportError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > self._limits.outage_s:
                    self._give_up(error)
                    return
                continue
            silent_since = None
            for letter in letters:
                awaited = self._awaited.get(letter.reply_to)
                if awaited is not None and not awaited.done():
                    awaited.set_result(letter)

    def _give_up(self, error: TransportError) -> None:
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(error)

    async def _call(self, what: Callable[[], _Result]) -> _Result:
        """A blocking call of Flower's client, one at a time, off the event loop."""
        async with self._one_at_a_time:
            try:
                return await asyncio.to_thread(what)
            except FedCreditError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever Flower's client raises: the SuperLink is not there
                raise TransportError("flower.unreachable", "the SuperLink does not answer", str(error)) from None


def _named(letter: Letter) -> FedCreditError:
    """Flower's fault as an error of ours; a node's own refusal keeps its code and text."""
    may_help = _MAY_HELP.get(-1 if letter.fault is None else letter.fault)
    if may_help is not None:
        return TransportError(*may_help)
    told = _REASON.search(letter.reason)
    if told is not None and told["code"]:
        return public_error(told["code"], told["text"], "node.app-failed")
    return PeerError("node.app-failed", f"the app at its node failed (Flower's code {letter.fault})", letter.reason)


def _believed(party: PartyId, node: int, letter: Letter) -> Answer:
    """An answer that is the party's own, and not a failure."""
    answer = Answer.read(letter.words)
    if letter.node != node or answer.party != party:
        raise PeerError(
            "node.party", f"the node registered as {party} answers as {answer.party[:64]!r}; its home is another's"
        )
    if answer.state is AnswerState.FAILED:
        raise answer.error()
    return answer

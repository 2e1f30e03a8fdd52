"""All parties of a run in one process, with nothing but signed bytes between them.

The simulation runs the same role coroutines as a real network: every message is encoded, passes the sender's gate,
becomes a signed envelope, and passes the recipient's gate back. Waits are bounded in *idle* time: while another role
of this process computes, nobody's patience runs out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fedcredit.errors import DataError, DisclosureRefused, FedCreditError, PeerError, SpecError, TransportError
from fedcredit.governance.audit import AuditLog, write_heads
from fedcredit.governance.gate import Gate, House, Released, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import simulation_policy
from fedcredit.runtime.leftovers import HeadroomMemory, HeadroomQuestion, continue_audit
from fedcredit.runtime.metering import Meter, NetworkModel, metered
from fedcredit.runtime.settings import LocalSettings, Tamper, TranscriptEntry, transcript_digest
from fedcredit.runtime.waiting import Deadline, Post
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, CostKind, Declaration, Spend
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import Message, kind_of
from fedcredit.wire.notice import ErrorNotice
from fedcredit.wire.schema import merge

__all__ = ["LocalChannel", "LocalNetwork", "LocalSettings", "Tamper", "TranscriptEntry"]

M = TypeVar("M", bound=Message)

_PEER_FAILED, _PEER_ENDED = "run.peer-failed", "run.peer-ended"
_SECONDARY = frozenset({_PEER_FAILED, _PEER_ENDED})
_GRACE_SECONDS = 2.0
"""How long the others may take to end by themselves after a failure, before they are cancelled."""

_FIRST_STAGE = "start"


class LocalNetwork:
    """The wires between the parties of one simulated run.

    Args:
        settings: The run.
    """

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        self._started = False
        self.transcript: list[TranscriptEntry] = []
        self.failures: dict[PartyId, BaseException] = {}
        self.model = NetworkModel(settings.bandwidth_mbps, settings.latency_ms)
        self._stages: dict[PartyId, str] = dict.fromkeys(settings.roster, _FIRST_STAGE)
        self._posts = {party: Post() for party in settings.roster}
        self._meters = {party: Meter() for party in settings.roster}
        self._everyone = Meter()
        self._heads: dict[PartyId, str] = {}
        self._audits: dict[PartyId, AuditLog] = {}
        self._gates: dict[PartyId, Gate] = {}
        self._ledgers: dict[PartyId, Ledger] = {}
        self._own_ledgers: list[Ledger] = []
        self._headroom: dict[PartyId, HeadroomMemory] = {}
        self._build()

    def _build(self) -> None:
        """Keys, audit logs, ledgers and gates of all parties."""
        settings = self.settings
        signing = {
            party: settings.signing_keys.get(party) or SigningKey.generate(settings.entropy)
            for party in settings.roster
        }
        keys = {party: key.public for party, key in signing.items()}
        schema = merge(*settings.schemas)
        context = RunContext(settings.run, settings.spec_digest, dict(settings.roster), keys, schema)
        for party in settings.roster:
            others = [other for other in settings.roster if other != party]
            policy = settings.policies.get(party) or simulation_policy(others, [s.name for s in schema.protocols])
            path = settings.audit_dir / f"{party}.jsonl" if settings.audit_dir else None
            self._audits[party] = continue_audit(path, party, settings.run, settings.clock)
            remembered = settings.headroom_dir / f"{party}.jsonl" if settings.headroom_dir else None
            self._headroom[party] = HeadroomMemory(remembered)
            ledger = settings.ledgers.get(party)
            if ledger is None:
                ledger = Ledger(":memory:", policy.cap_rules())
                self._own_ledgers.append(ledger)
            self._ledgers[party] = ledger
            house = House(party, signing[party], policy, ledger, self._audits[party], settings.clock)
            self._gates[party] = Gate(context, house)

    def channel(self, party: PartyId) -> LocalChannel:
        """A party's end of the run.

        Raises:
            SpecError: the party is not in the roster.
        """
        if party not in self._gates:
            raise SpecError("network.party", f"{party} is not in the roster of this run")
        return LocalChannel(self, party)

    def ledger(self, party: PartyId) -> Ledger:
        """A party's ledger."""
        return self._ledgers[party]

    def audit(self, party: PartyId) -> AuditLog:
        """A party's audit log."""
        return self._audits[party]

    @property
    def bytes_sent(self) -> dict[PartyId, int]:
        """Envelope bytes each party let out."""
        return {party: gate.bytes_sent for party, gate in self._gates.items()}

    @property
    def messages(self) -> dict[PartyId, int]:
        """Messages each party let out."""
        return {party: gate.messages_sent for party, gate in self._gates.items()}

    @property
    def cpu_seconds(self) -> dict[PartyId, float]:
        """Processor seconds each role has used."""
        return {party: meter.cpu for party, meter in self._meters.items()}

    @property
    def modelled_seconds(self) -> float:
        """Seconds the messages would have taken on the modelled network."""
        return self.model.seconds

    @property
    def heads(self) -> dict[PartyId, str]:
        """Heads of the audit logs, once the run is over."""
        return dict(self._heads)

    def transcript_digest(self) -> str:
        """SHA-256 over all messages, link by link, so that the order between links does not matter."""
        return transcript_digest(self.transcript)

    async def run_roles(
        self, roles: Mapping[PartyId, Coroutine[Any, Any, Any]], *, seal: bool = True
    ) -> dict[PartyId, Any]:
        """Runs all roles to their end; once.

        Args:
            roles: Coroutine of each party.
            seal: Close audit logs and ledgers at the end. False leaves them open, after an error too: the caller has to
                call `seal` or `close_audits`.

        Returns:
            What each role returned.

        Raises:
            FedCreditError: of the role that failed first; the errors it caused elsewhere are in ``failures``.
            PeerError: all roles ended, but a message was never asked for.
            SpecError: a role of no party of the roster, or a second call.
        """
        self._start(roles)
        tasks = {
            party: asyncio.create_task(self._role(party, coroutine), name=party) for party, coroutine in roles.items()
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            running = [task for task in tasks.values() if not task.done()]
            if running:
                await asyncio.wait(running, timeout=_GRACE_SECONDS)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            for coroutine in roles.values():
                coroutine.close()  # one that was cancelled before its first step was never awaited
            if seal:
                self.close_audits()
        if self.failures:
            raise next(iter(self.failures.values()))
        self._check_nothing_left()
        if seal:
            self.seal()
        return {party: task.result() for party, task in tasks.items()}

    def _start(self, roles: Mapping[PartyId, Coroutine[Any, Any, Any]]) -> None:
        """Refuses a second start and roles of nobody."""
        strangers = sorted(roles.keys() - self._gates.keys())
        if self._started or strangers:
            for coroutine in roles.values():
                coroutine.close()
            what = f"{strangers[0]} is not in the roster of this run" if strangers else "this run was started before"
            raise SpecError("network.roles", what)
        self._started = True

    async def _role(self, party: PartyId, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """One role; its failure is told to the others at once."""
        try:
            result = await metered(coroutine, (self._meters[party], self._everyone))
        except asyncio.CancelledError:
            self._end(party, "was stopped")
            raise
        except BaseException as error:
            self.failures[party] = error
            if not (isinstance(error, FedCreditError) and error.code in _SECONDARY):
                self._notify(party, error)
            self._end(party, "has failed")
            raise
        self._end(party, "has ended")
        return result

    def _notify(self, party: PartyId, error: BaseException) -> None:
        """Sends every other party the code and public text of an error, as far as the gate allows it."""
        if isinstance(error, DataError):
            # What is wrong with a party's own records is for its own log: a refusal must not count or name anything.
            notice = ErrorNotice(code="data", text="the party's own records do not carry this run")
        elif isinstance(error, DisclosureRefused):
            notice = ErrorNotice(code=error.code, text="a cap of its disclosure ledger would be passed")
        elif isinstance(error, FedCreditError):
            notice = ErrorNotice(code=error.code[:128], text=error.public[:1024])
        else:
            notice = ErrorNotice(code="run.internal", text="an internal error; the local log says more")
        for other in self.settings.roster:
            if other != party:
                try:
                    released = self._gates[party].release(other, notice, self._stages[party])
                except FedCreditError:
                    continue  # the end of the link, which follows, tells the peer without words
                self._deliver(party, other, released)

    def _end(self, party: PartyId, how: str) -> None:
        for other, post in self._posts.items():
            if other != party:
                post.ended[party] = how
                post.changed.set()

    def seal(self) -> None:
        """Ends the run for good: closes the audit logs, publishes their heads, closes the ledgers' accounts of it."""
        self.close_audits()
        for ledger in self._ledgers.values():
            ledger.close_run(self.settings.run)

    def close_audits(self) -> None:
        """Closes the audit logs and publishes their heads."""
        for party, audit in self._audits.items():
            self._heads[party] = audit.close().head
        if self.settings.audit_dir is not None:
            write_heads(self.settings.audit_dir, self._heads)

    def _check_nothing_left(self) -> None:
        for recipient, post in self._posts.items():
            for sender, queue in post.queues.items():
                if queue:
                    raise PeerError(
                        "wire.unexpected", f"{sender} sent {recipient} {len(queue)} messages that were never asked for"
                    )

    def close(self) -> None:
        """Closes the ledgers that were made for this run."""
        for ledger in self._own_ledgers:
            ledger.close()

    def _deliver(self, sender: PartyId, recipient: PartyId, released: Released) -> None:
        """Puts an envelope into the recipient's inbox, and into the transcript."""
        size = len(released.data)
        self.transcript.append(
            TranscriptEntry(
                sender=sender,
                recipient=recipient,
                kind=released.kind,
                bytes=size,
                stage=self._stages[sender],
                sequence=released.sequence,
                body_sha256=released.body_sha256,
            )
        )
        arrival = self.model.sent(sender, size)
        post, tamper = self._posts[recipient], self.settings.tamper
        delivered = tamper(sender, recipient, released.kind, released.data) if tamper else (released.data,)
        for data in delivered:
            if released.kind == kind_of(ErrorNotice):
                post.notices.append((sender, data))
            else:
                post.queues.setdefault(sender, deque()).append((data, arrival))
        post.changed.set()

    def send(self, sender: PartyId, to: PartyId, message: Message, spend: Spend | None) -> None:
        """Lets one message out of its sender's gate and delivers it."""
        self._deliver(sender, to, self._gates[sender].release(to, message, self._stages[sender], spend))

    async def receive(self, party: PartyId, sender: PartyId, kind: type[M], deadline: Deadline) -> M:
        """Waits for the next envelope of a sender and lets it in."""
        if sender not in self._posts:
            raise PeerError("wire.stranger", f"{party} waits for {sender}, who is in no roster of this run")
        post, gate = self._posts[party], self._gates[party]
        while True:
            if post.notices:
                culprit, data = post.notices.popleft()
                notice = gate.admit_notice(data, culprit)
                raise PeerError(_PEER_FAILED, f"{culprit} stopped the run: {notice.text} [{notice.code}]")
            queue = post.queues.get(sender)
            if queue:
                data, arrival = queue.popleft()
                message = gate.admit(data, sender, self._stages[party], kind)
                self.model.received(party, arrival)
                return message
            if sender in post.ended:
                how = post.ended[sender]
                raise TransportError(_PEER_ENDED, f"{sender} {how} and will not send {kind_of(kind)}")
            post.changed.clear()
            post.waits_for = sender
            if not await deadline.wait(post.changed):
                late = f"{sender} did not send {kind_of(kind)} within {deadline.seconds:g} s"
                raise TransportError("run.timeout", late + self._blame(party, sender))
            post.waits_for = None

    def _blame(self, party: PartyId, sender: PartyId) -> str:
        """Names whom a late sender waits for itself, down the chain."""
        chain: list[PartyId] = [party, sender]
        while (next_one := self._posts[chain[-1]].waits_for) is not None and next_one not in chain:
            chain.append(next_one)
        return f" (it waits for {', which waits for '.join(chain[2:])})" if chain[2:] else ""

    def deadline(self) -> Deadline:
        """A fresh time-out that counts idle time only."""
        return Deadline(self.settings.timeout_s, self._everyone)

    def declare(self, party: PartyId, counterparty: PartyId, declaration: Declaration) -> None:
        """Takes a declaration through the party's gate, with the evidence of its basis."""
        gate = self._gates[party]
        if not declaration.evidence:
            declaration = replace(declaration, evidence=gate.evidence_of(counterparty))
        gate.declare(counterparty, declaration)

    def headroom(self, party: PartyId, question: HeadroomQuestion) -> tuple[float, ...]:
        """What a party's ledger would still allow; after a restart, what it said the first time."""
        return self._headroom[party].answer(self._ledgers[party], self.settings.run, question)

    def enter(self, party: PartyId, stage: str) -> None:
        """Notes that a party goes on to another stage."""
        if stage == self._stages[party]:
            return
        self._stages[party] = stage
        self._audits[party].append("stage", {"stage": stage})
        if self.settings.progress is not None:
            self.settings.progress(party, stage)


class LocalChannel:
    """One party's end of a `LocalNetwork`; implements `fedcredit.protocol.channel.Channel`."""

    def __init__(self, network: LocalNetwork, party: PartyId) -> None:
        self._network = network
        self._party = party

    @property
    def party(self) -> PartyId:
        """The party this end belongs to."""
        return self._party

    async def send(self, to: PartyId, message: Message, *, spend: Spend | None = None) -> None:
        """See `Channel.send`."""
        self._network.send(self._party, to, message, spend)
        await asyncio.sleep(0)  # lets the recipient start on it

    async def broadcast(self, to: Sequence[PartyId], message: Message) -> None:
        """See `Channel.broadcast`."""
        for recipient in to:
            await self.send(recipient, message)

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        """See `Channel.receive`."""
        return await self._network.receive(self._party, sender, kind, self._network.deadline())

    async def gather(self, senders: Sequence[PartyId], kind: type[M]) -> dict[PartyId, M]:
        """See `Channel.gather`."""
        deadline = self._network.deadline()
        return {sender: await self._network.receive(self._party, sender, kind, deadline) for sender in senders}

    def declare(self, counterparty: PartyId, declaration: Declaration) -> None:
        """See `Channel.declare`."""
        self._network.declare(self._party, counterparty, declaration)

    def headroom(
        self, counterparty: PartyId, data_version: str, basis: Basis, kind: CostKind, features: Sequence[str]
    ) -> tuple[float, ...]:
        """See `Channel.headroom`."""
        return self._network.headroom(self._party, HeadroomQuestion(counterparty, data_version, basis, kind, features))

    def stage(self, name: str) -> None:
        """See `Channel.stage`."""
        self._network.enter(self._party, name)

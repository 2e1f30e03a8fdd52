"""All parties of a run in one process, with nothing but signed bytes between them.

The simulation runs the same role coroutines as a real network: every message is encoded, passes the sender's gate,
becomes a signed envelope, and passes the recipient's gate back. Waits are bounded in *idle* time: while another role
of this process computes, nobody's patience runs out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from fedcredit.errors import FedCreditError, PeerError, SpecError
from fedcredit.governance.audit import AuditLog, write_heads
from fedcredit.governance.gate import House, Released, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import simulation_policy
from fedcredit.runtime.leftovers import HeadroomMemory, continue_audit
from fedcredit.runtime.metering import Meter, NetworkModel, metered
from fedcredit.runtime.party_end import SECONDARY, PartyChannel, PartyEnd
from fedcredit.runtime.settings import LocalSettings, Tamper, TranscriptEntry, transcript_digest
from fedcredit.runtime.waiting import Deadline
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import kind_of
from fedcredit.wire.notice import ErrorNotice
from fedcredit.wire.schema import merge

__all__ = ["LocalNetwork", "LocalSettings", "Tamper", "TranscriptEntry"]

_GRACE_SECONDS = 2.0
"""How long the others may take to end by themselves after a failure, before they are cancelled."""


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
        self._meters = {party: Meter() for party in settings.roster}
        self._everyone = settings.busy or Meter()
        self._heads: dict[PartyId, str] = {}
        self._own_ledgers: list[Ledger] = []
        self._ends: dict[PartyId, PartyEnd] = {}
        self._arrivals: dict[tuple[PartyId, PartyId, int], float] = {}
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
            audit = continue_audit(path, party, settings.run, settings.clock, durable=False)
            remembered = settings.headroom_dir / f"{party}.jsonl" if settings.headroom_dir else None
            ledger = settings.ledgers.get(party)
            if ledger is None:
                ledger = Ledger(":memory:", policy.cap_rules())
                self._own_ledgers.append(ledger)
            house = House(party, signing[party], policy, ledger, audit, settings.clock)
            self._ends[party] = PartyEnd(context, house, HeadroomMemory(remembered), settings.progress)

    def channel(self, party: PartyId) -> PartyChannel:
        """A party's end of the run.

        Raises:
            SpecError: the party is not in the roster.
        """
        if party not in self._ends:
            raise SpecError("network.party", f"{party} is not in the roster of this run")
        return PartyChannel(self._ends[party], self)

    def ledger(self, party: PartyId) -> Ledger:
        """A party's ledger."""
        return self._ends[party].house.ledger

    def audit(self, party: PartyId) -> AuditLog:
        """A party's audit log."""
        return self._ends[party].house.audit

    @property
    def bytes_sent(self) -> dict[PartyId, int]:
        """Envelope bytes each party let out."""
        return {party: end.gate.bytes_sent for party, end in self._ends.items()}

    @property
    def messages(self) -> dict[PartyId, int]:
        """Messages each party let out."""
        return {party: end.gate.messages_sent for party, end in self._ends.items()}

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
        strangers = sorted(roles.keys() - self._ends.keys())
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
            if not (isinstance(error, FedCreditError) and error.code in SECONDARY):
                self._notify(party, error)
            self._end(party, "has failed")
            raise
        self._end(party, "has ended")
        return result

    def _notify(self, party: PartyId, error: BaseException) -> None:
        """Sends every other party the code and public text of an error, as far as the gate allows it."""
        for other, released in self._ends[party].notices(error):
            self._book(party, [(other, released)])
            self._deliver(party, other, released)

    def _end(self, party: PartyId, how: str) -> None:
        for other, end in self._ends.items():
            if other != party:
                end.post.ended[party] = how
                end.post.changed.set()

    def seal(self) -> None:
        """Ends the run for good: closes the audit logs, publishes their heads, closes the ledgers' accounts of it."""
        self.close_audits()
        for end in self._ends.values():
            end.house.ledger.close_run(self.settings.run)

    def close_audits(self) -> None:
        """Closes the audit logs and publishes their heads."""
        for party, end in self._ends.items():
            self._heads[party] = end.house.audit.close().head
        if self.settings.audit_dir is not None:
            write_heads(self.settings.audit_dir, self._heads)

    def _check_nothing_left(self) -> None:
        for recipient, end in self._ends.items():
            for sender, queue in end.post.queues.items():
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
                stage=self._ends[sender].stage,
                sequence=released.sequence,
                body_sha256=released.body_sha256,
            )
        )
        arrival = self._arrivals.pop((sender, recipient, released.sequence), 0.0)
        post, tamper = self._ends[recipient].post, self.settings.tamper
        delivered = tamper(sender, recipient, released.kind, released.data) if tamper else (released.data,)
        for data in delivered:
            if released.kind == kind_of(ErrorNotice):
                post.notices.append((sender, data))
            else:
                post.queues.setdefault(sender, deque()).append((data, arrival))
        post.changed.set()

    def _book(self, sender: PartyId, out: Sequence[tuple[PartyId, Released]]) -> None:
        """Notes when messages will be there on the modelled network; those with one body are a broadcast."""
        together: dict[str, dict[PartyId, Released]] = {}
        for recipient, released in out:
            together.setdefault(released.body_sha256, {})[recipient] = released
        for same in together.values():
            arrivals = self.model.sent(sender, {recipient: len(one.data) for recipient, one in same.items()})
            for recipient, one in same.items():
                self._arrivals[sender, recipient, one.sequence] = arrivals[recipient]

    async def deliver(self, sender: PartyId, out: Sequence[tuple[PartyId, Released]]) -> None:
        """See `fedcredit.runtime.party_end.Wires`."""
        self._book(sender, out)
        for recipient, released in out:
            self._deliver(sender, recipient, released)
            await asyncio.sleep(0)  # lets the recipient start on it

    def patience(self) -> Deadline:
        """A fresh time-out that counts idle time only."""
        return Deadline(self.settings.timeout_s, self._everyone)

    def read(self, party: PartyId, arrival: float) -> None:
        """See `fedcredit.runtime.party_end.Wires`."""
        self.model.received(party, arrival)

    def waits_for(self, party: PartyId) -> PartyId | None:
        """See `fedcredit.runtime.party_end.Wires`."""
        return self._ends[party].post.waits_for

"""A whole averaging run over channels: visits one after the other, for simulations in one process and for tests.

A bank that is lost ends such a run; what carries visits over hours and goes on without it is the runtime's.
"""

from __future__ import annotations

from fedcredit.errors import PeerError
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.fedavg.bank import SCHEMAS, BankInputs, FedavgBank
from fedcredit.protocol.fedavg.learner import Learned
from fedcredit.protocol.fedavg.messages import ModelReady
from fedcredit.protocol.fedavg.relay import Averaged, FedavgRelay
from fedcredit.protocol.fedavg.sums import Outgoing
from fedcredit.protocol.secure_sum.messages import (
    Begin,
    Contribution,
    Join,
    Opening,
    Prepared,
    Shares,
    Survivors,
    Turn,
    Welcome,
)
from fedcredit.spec.model import RunSpec
from fedcredit.types import COORDINATOR, RunId
from fedcredit.wire.message import Message

__all__ = ["SCHEMAS", "bank", "coordinate"]

_STAGE = "averaging"

_REPLY: dict[type[Message], type[Message]] = {
    Join: Welcome,
    Prepared: Begin,
    Contribution: Survivors,
    Shares: Opening,
}
"""What the coordinator says after a bank's message."""

_ANSWER: dict[type[Message], type[Message]] = {Welcome: Prepared, Begin: Contribution, Survivors: Shares}
"""What a bank says after the coordinator's; after an `Opening` it says first whether another sum follows."""


async def bank(channel: Channel, inputs: BankInputs) -> Learned:
    """A bank's role.

    Raises:
        FedCreditError: a peer failed, the protocol was broken, or the bank's own part failed.
    """
    channel.stage(_STAGE)
    role = FedavgBank(inputs)
    question: list[Message] = []
    while True:
        answer = [message for _, message in role.answer(question)]
        if question and isinstance(question[0], Opening):
            await channel.send(COORDINATOR, Turn(more=not role.finished))
        for message in answer:
            await channel.send(COORDINATOR, message)
        if role.finished:
            return role.result()
        question = [await channel.receive(COORDINATOR, _REPLY[type(answer[-1])])]


async def coordinate(channel: Channel, spec: RunSpec, run: RunId) -> Averaged:
    """The coordinator's role.

    Raises:
        FedCreditError: a bank failed or is gone, the protocol was broken, or banks ended with different models.
    """
    channel.stage(_STAGE)
    relay = FedavgRelay(spec, run)
    questions: Outgoing = relay.start()
    kind: type[Message] = Join
    while True:
        came = await channel.gather(sorted(questions), kind)
        questions = relay.arrived({party: [message] for party, message in came.items()})
        if relay.finished:
            return relay.result()
        for party, messages in sorted(questions.items()):
            for message in messages:
                await channel.send(party, message)
        kind = await _next_kind(channel, questions)


async def _next_kind(channel: Channel, questions: Outgoing) -> type[Message]:
    asked = type(next(iter(questions.values()))[0])
    if asked is not Opening:
        return _ANSWER[asked]
    turns = await channel.gather(sorted(questions), Turn)
    for party, turn in turns.items():
        if turn.more != next(iter(turns.values())).more:
            raise PeerError("fedavg.ready", f"{party} and other banks differ on whether it is over", culprit=party)
    return Contribution if next(iter(turns.values())).more else ModelReady

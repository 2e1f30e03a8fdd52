"""The Flower ClientApp of a node: hands each message to the node's worker. No protocol code, nothing heavy."""

from __future__ import annotations

import os

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcredit.errors import FedCreditError
from fedcredit.runtime.flower_client import node_side
from fedcredit.runtime.flower_words import RECORD, failure

__all__ = ["app", "propose", "session", "visit"]

app = ClientApp()


@app.query("propose")
def propose(message: Message, context: Context) -> Message:
    """A proposal: the house's gate decides."""
    return _answered("propose", message, context)


@app.train("session")
def session(message: Message, context: Context) -> Message:
    """A session order: the role runs whole; or the question how it goes."""
    return _answered("session", message, context)


@app.train("visit")
def visit(message: Message, context: Context) -> Message:
    """One question of a run that is learned in rounds: a worker opens the house, answers, and ends."""
    return _answered("visit", message, context)


def _answered(action: str, message: Message, context: Context) -> Message:
    declared = context.node_config.get("party")
    try:
        side = node_side(os.environ)
    except FedCreditError as error:
        answer = failure(str(declared), error)
    else:
        record = message.content.config_records.get(RECORD)
        answer = side.answer(action, dict(record or {}), declared)
    return Message(RecordDict({RECORD: ConfigRecord(dict(answer.words()))}), reply_to=message)

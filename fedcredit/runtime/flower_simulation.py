"""Flower's simulation engine as the post office of a simulated run: banks are its virtual nodes, spread over Ray.

    python -m fedcredit.runtime.flower_simulation JOB FOLDER    < questions    > answers

A virtual node keeps nothing between two messages, neither in Flower's context nor in a module: any actor of Ray may
handle the next one. Its house is a folder of the run. On a cluster that folder has to be on a shared file system.
`fedcredit.runtime.flower_office` starts this process.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedcredit.errors import FedCreditError, SpecError, TransportError
from fedcredit.runtime.flower_office import FRAME_HEAD, START_S, Asked, FlowerJob, Told, framed
from fedcredit.runtime.flower_server import CourierLimits, FlowerCourier, Letter, NodeRow
from fedcredit.runtime.flower_words import ACTIONS, RECORD, Answer, AnswerState, Question, Word, failure
from fedcredit.runtime.refusals import public_error
from fedcredit.types import PartyId, RunId

__all__ = ["main"]

_POLL_S = 0.02  # a look for answers costs the in-memory state of the engine next to nothing
_WHO = "query.who"
_OBJECT_STORE = 1 << 28  # bytes; messages are all that is in it


class _SimulationMail:
    """The engine's Grid as the courier wants it; a node's key is its party's name, since virtual nodes have none."""

    def __init__(self, grid: Grid, parties: Mapping[int, str]) -> None:
        self._grid = grid
        self._rows = [NodeRow(node, party, party.encode()) for node, party in parties.items()]

    def nodes(self) -> Sequence[NodeRow]:
        return self._rows

    def push(self, node: int, kind: str, words: Mapping[str, object], ttl_s: float) -> str:
        record = ConfigRecord({key: value for key, value in words.items() if isinstance(value, Word)})
        (sent,) = self._grid.push_messages([Message(RecordDict({RECORD: record}), node, kind, ttl=ttl_s)])
        return sent

    def pull(self, messages: Sequence[str]) -> Sequence[Letter]:
        return [_letter(reply) for reply in self._grid.pull_messages(messages)]

    def key_of(self, line: str) -> bytes:
        return line.encode()


def _letter(reply: Message) -> Letter:
    told, sender = reply.metadata.reply_to_message_id, reply.metadata.src_node_id
    if reply.has_error():
        return Letter(told, sender, fault=reply.error.code, reason=reply.error.reason or "")
    return Letter(told, sender, words=dict(reply.content.config_records.get(RECORD) or {}))


def _client_app(job: FlowerJob) -> ClientApp:
    app = ClientApp()

    @app.query("who")
    def who(message: Message, context: Context) -> Message:
        party = job.parties[int(str(context.node_config["partition-id"]))]
        return Message(RecordDict({RECORD: ConfigRecord({"party": party})}), reply_to=message)

    @app.train("visit")
    def visit(message: Message, context: Context) -> Message:
        party = job.parties[int(str(context.node_config["partition-id"]))]
        record = message.content.config_records.get(RECORD)
        answer = _visited(job, party, dict(record or {}))
        return Message(RecordDict({RECORD: ConfigRecord(dict(answer.words()))}), reply_to=message)

    return app


def _visited(job: FlowerJob, party: str, words: Mapping[str, object]) -> Answer:
    """What a virtual node says; every failure of its house becomes an answer with its code and public text."""
    try:
        question = Question.read(words)
        answer = _function(job.visit)(Path(job.folder), PartyId(party), question.payload)
        return Answer(party, AnswerState.DONE, answer)
    except FedCreditError as error:
        if isinstance(error, TransportError):
            return failure(party, error)
        code, text, _ = public_error(error)
        return Answer(party, AnswerState.FAILED, code=code, text=text)


def _function(name: str) -> Callable[[Path, PartyId, bytes], bytes]:
    module, _, function = name.partition(":")
    found: Callable[[Path, PartyId, bytes], bytes] = getattr(importlib.import_module(module), function)
    return found


def _server_app(job: FlowerJob, out: int) -> ServerApp:
    app = ServerApp()

    @app.main()
    def carry(grid: Grid, context: Context) -> None:  # noqa: ARG001 -- Flower's signature
        mail = _SimulationMail(grid, _who(grid, len(job.parties)))
        asyncio.run(_Carrier(job, mail, out).through())

    return app


def _who(grid: Grid, count: int) -> dict[int, str]:
    """Party by node: the engine numbers its nodes at random."""
    while len(nodes := list(grid.get_node_ids())) < count:  # another thread of the engine registers them
        time.sleep(_POLL_S)
    empty = RecordDict({RECORD: ConfigRecord({})})
    replies = grid.send_and_receive([Message(empty, node, _WHO, ttl=START_S) for node in nodes], timeout=START_S)
    found = {
        reply.metadata.src_node_id: str(reply.content.config_records[RECORD]["party"])
        for reply in replies
        if not reply.has_error()
    }
    if len(found) != count:
        raise SpecError("simulation.nodes", f"{len(found)} of {count} virtual nodes answered")
    return found


@dataclass
class _Carrier:
    """Takes questions off the pipe and puts answers on it, all at once."""

    job: FlowerJob
    mail: _SimulationMail
    out: int

    async def through(self) -> None:
        keys = {PartyId(party): party for party in self.job.parties}
        limits = CourierLimits(poll_s=_POLL_S, outage_s=START_S)
        courier = FlowerCourier(self.mail, RunId(self.job.run), keys, lambda: 0.0, limits)
        reader, loop = asyncio.StreamReader(limit=1 << 20), asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks: set[asyncio.Task[None]] = set()
        while True:
            try:
                size = FRAME_HEAD.unpack(await reader.readexactly(FRAME_HEAD.size))[0]
                asked = msgspec.msgpack.decode(await reader.readexactly(size), type=Asked)
            except asyncio.IncompleteReadError:
                break
            task = asyncio.create_task(self._one(courier, asked))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()

    async def _one(self, courier: FlowerCourier, asked: Asked) -> None:
        if not asked.party:  # the question whether all nodes are there, which they are by now
            self._tell(Told(asked.number))
            return
        try:
            answer = await courier.ask(PartyId(asked.party), "visit", asked.question, self.job.timeout_s)
            self._tell(Told(asked.number, answer))
        except FedCreditError as error:
            again = isinstance(error, TransportError)
            self._tell(Told(asked.number, code=error.code, text=error.public, again=again))

    def _tell(self, told: Told) -> None:
        rest = memoryview(framed(told))
        while rest:
            rest = rest[os.write(self.out, rest) :]


def _backend(job: FlowerJob, ray_folder: str) -> dict[str, Any]:
    if job.ray_address:
        init: dict[str, Any] = {"address": job.ray_address}
    else:
        init = {"num_cpus": job.cpus, "object_store_memory": _OBJECT_STORE, "_temp_dir": ray_folder}
    return {"init_args": init, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}


def main(arguments: Sequence[str]) -> None:
    """Flower's process: carries until its standard input ends."""
    job = msgspec.json.decode(arguments[0], type=FlowerJob)
    sys.path += job.paths  # which Flower hands on to Ray's actors
    out = os.dup(sys.stdout.fileno())  # answers; whatever else is printed goes where errors go
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if ACTIONS["visit"] != "train.visit":
        raise SpecError("simulation.action", "the engine's app and the courier name visits differently")
    status = 1
    try:
        run_simulation(
            _server_app(job, out),
            _client_app(job),
            num_supernodes=len(job.parties),
            backend_config=_backend(job, arguments[1]),
        )
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)  # a thread of the engine may wait for what will never come


if __name__ == "__main__":
    # by its name, so that Ray's actors find what they are sent
    importlib.import_module("fedcredit.runtime.flower_simulation").main(sys.argv[1:])

"""The Flower ServerApp: opens the coordinator's home and drives one run over Flower's messages."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from coordinator.control import node_key
from fedcredit.errors import SpecError
from fedcredit.runtime.daemon.leash import end_with
from fedcredit.runtime.daemon.spare import handed_over
from fedcredit.runtime.daemon.worker_process import WorkerJob, run_worker
from fedcredit.runtime.flower_client import HOME_VARIABLE, SUPERVISOR_VARIABLE
from fedcredit.runtime.flower_server import FlowerCourier, Letter, NodeRow
from fedcredit.runtime.flower_words import RECORD, Word
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.runs.coordinator_parts import driver_parts
from fedcredit.runtime.runs.driver import drive
from fedcredit.runtime.runs.driver_parts import DriverLimits
from fedcredit.runtime.runs.registry import ACTIVE, Registry
from fedcredit.types import RunId

__all__ = ["GridMail", "app", "main"]

_HOLD_ALONE_S = 20.0  # a short session ends within one message
_HOLD_BUSY_S = 1.0  # other runs wait at the same nodes

app = ServerApp()


class GridMail:
    """Flower's Grid as the courier wants it."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> Sequence[NodeRow]:
        """All SuperNodes that are connected."""
        return [NodeRow(row.node_id, row.name, bytes(row.public_key)) for row in self._grid.get_nodes()]

    def push(self, node: int, kind: str, words: Mapping[str, object], ttl_s: float) -> str:
        """Sends a message."""
        record = ConfigRecord({key: value for key, value in words.items() if isinstance(value, Word)})
        (sent,) = self._grid.push_messages([Message(RecordDict({RECORD: record}), node, kind, ttl=ttl_s)])
        if not sent:
            raise ConnectionError("the SuperLink did not take the message")
        return sent

    def pull(self, messages: Sequence[str]) -> Sequence[Letter]:
        """Answers that are there."""
        return [_letter(reply) for reply in self._grid.pull_messages(messages)]

    def key_of(self, line: str) -> bytes:
        """A node's key in Flower's form."""
        return node_key(line)


def _letter(reply: Message) -> Letter:
    told, sender = reply.metadata.reply_to_message_id, reply.metadata.src_node_id
    if reply.has_error():
        return Letter(told, sender, fault=reply.error.code, reason=reply.error.reason or "")
    return Letter(told, sender, words=dict(reply.content.config_records.get(RECORD) or {}))


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Drives the run that the run's configuration names."""
    supervisor = os.environ.get(SUPERVISOR_VARIABLE, "")
    if supervisor.isdecimal():
        end_with(int(supervisor))
    named = os.environ.get(HOME_VARIABLE)
    if not named:
        raise SpecError("coordinator.home", f"{HOME_VARIABLE} is not set; start with fedcredit-coordinator start")
    home = open_home(Path(named))
    registry = Registry(home.state / "registry.sqlite")
    try:
        asyncio.run(_drive(home, registry, RunId(str(context.run_config["run"])), GridMail(grid)))
    finally:
        registry.close()


async def _drive(home: Home, registry: Registry, run: RunId, mail: GridMail) -> None:
    keys = {party: home.roster.member(party).flower_key for party in registry.get(run).parties}
    alone = _HOLD_ALONE_S, _HOLD_BUSY_S
    courier = FlowerCourier(mail, run, keys, lambda: alone[len(registry.runs(*ACTIVE)) > 1])
    job = WorkerJob(
        handed_over(home.folder, (sys.executable, "-P", "-m", "coordinator.worker", str(home.folder), "run")),
        home.logs / "worker.log",
    )

    async def own_worker(order: bytes) -> bytes:
        try:
            return await run_worker(job, order)
        finally:
            courier.nudge()

    limits = DriverLimits(approval_s=home.coordinator.flower.approval_timeout_s)
    await drive(driver_parts(home, registry, courier, own_worker, limits), run)

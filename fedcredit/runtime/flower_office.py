"""The door to Flower's simulation engine: questions to banks go through a pipe to the process in which it lives.

Flower and Ray stay in that process (`fedcredit.runtime.flower_simulation`) with their threads, signals, warnings and
prints; what they print goes to a log. So whoever drives the rounds is the same with and without Flower.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import struct
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import msgspec

from fedcredit.errors import FedCreditError, IntegrityError, SpecError, TransportError
from fedcredit.runtime.daemon.leash import leashed
from fedcredit.runtime.daemon.worker_process import public_error
from fedcredit.runtime.flower_processes import SWITCHED_OFF
from fedcredit.types import PartyId

__all__ = ["FRAME_HEAD", "START_S", "Asked", "FlowerJob", "FlowerOffice", "Told", "framed"]

START_S: Final = 180.0
"""Longest start of the engine, in seconds: Ray's own and its actors' imports, on a busy machine."""

_END_S = 60.0
FRAME_HEAD: Final = struct.Struct(">I")
"""Before each frame of the pipe: its length in bytes."""

_ENGINE_DIED = "simulation.engine"
_ENGINE = "fedcredit.runtime.flower_simulation"
_NEEDED = ("flwr", "ray")


class FlowerJob(msgspec.Struct, frozen=True, kw_only=True):
    """What Flower is to carry.

    Attributes:
        run: Name of the run.
        folder: Folder of the run, given to each visit.
        parties: The banks; the virtual node of partition k is the k-th.
        visit: ``module:function`` that a virtual node calls with (folder, party, question) and that gives an answer.
        timeout_s: For one answer.
        ray_address: Of a cluster to join; "" = this machine.
        cpus: Actors on this machine; on a cluster its own count holds.
        paths: Folders in which modules are looked for last, such as those of tests.
    """

    run: str
    folder: str
    parties: list[str]
    visit: str
    timeout_s: float
    ray_address: str = ""
    cpus: int = 1
    paths: list[str] = []


class Asked(msgspec.Struct, frozen=True):
    """A question on its way to a bank; the empty party asks whether all are there."""

    number: int
    party: str
    question: bytes


class Told(msgspec.Struct, frozen=True):
    """An answer on its way back, or an error of ours in its place."""

    number: int
    answer: bytes = b""
    code: str = ""
    text: str = ""
    again: bool = False


class FlowerOffice:
    """Flower in a process of its own; an asynchronous context.

    Args:
        job: What it carries.
        log: Where it prints.
    """

    def __init__(self, job: FlowerJob, log: Path) -> None:
        self._job, self._log = job, log
        self._process: Process | None = None
        self._awaited: dict[int, asyncio.Future[bytes]] = {}
        self._count = 0
        self._reader: asyncio.Task[None] | None = None
        self._ray = Path()

    async def __aenter__(self) -> Self:
        """Starts Flower and waits until its nodes answer.

        Raises:
            SpecError: Flower or Ray is not installed.
            TransportError: it did not start; its log says why.
        """
        absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if absent:
            right = "install fedcredit[deploy], or simulate without Flower"
            raise SpecError("simulation.engine", f"{absent[0]} is not installed; {right}")
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ray = Path(tempfile.mkdtemp(prefix="fedcredit-ray-"))
        try:
            with self._log.open("ab") as log:
                job = msgspec.json.encode(self._job).decode()
                command = (sys.executable, "-P", "-W", "ignore", "-m", _ENGINE, job, str(self._ray))
                self._process = await asyncio.create_subprocess_exec(
                    *leashed(command), stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True, env=_environment()
                )
            self._reader = asyncio.create_task(self._read())
            async with asyncio.timeout(START_S):
                await self._ask(0, "", b"")
        except TimeoutError:
            await self._end()
            raise TransportError(_ENGINE_DIED, f"Flower's nodes did not answer within {START_S:g} s") from None
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends Flower and all that it has started."""
        await self._end()

    async def visit(self, party: PartyId, question: bytes) -> bytes:
        """A question to a bank; see `fedcredit.runtime.rounds.driver.Visit`."""
        self._count += 1
        return await self._ask(self._count, party, question)

    async def _ask(self, number: int, party: str, question: bytes) -> bytes:
        process = self._process
        if process is None or process.stdin is None or (self._reader is not None and self._reader.done()):
            raise self._died()
        awaited: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._awaited[number] = awaited
        try:
            with suppress(ConnectionError):  # the reader says so
                process.stdin.write(framed(Asked(number, party, question)))
                await process.stdin.drain()
            return await awaited
        finally:
            self._awaited.pop(number, None)

    async def _read(self) -> None:
        process = self._process
        try:
            while process is not None and process.stdout is not None:
                size = FRAME_HEAD.unpack(await process.stdout.readexactly(FRAME_HEAD.size))[0]
                told = msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Told)
                awaited = self._awaited.get(told.number)
                if awaited is None or awaited.done():
                    continue
                if not told.code:
                    awaited.set_result(told.answer)
                else:
                    error = public_error(told.code, told.text, "node.failed")
                    awaited.set_exception(TransportError(error.code, error.public) if told.again else error)
        except asyncio.IncompleteReadError:
            pass
        for awaited in self._awaited.values():
            if not awaited.done():
                awaited.set_exception(self._died())

    def _died(self) -> FedCreditError:
        return IntegrityError(_ENGINE_DIED, f"Flower's simulation engine has ended; {self._log.name} says why")

    async def _end(self) -> None:
        process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_S)
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 5)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        shutil.rmtree(self._ray, ignore_errors=True)


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return {**own, **SWITCHED_OFF, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def framed(content: msgspec.Struct) -> bytes:
    """A frame of the pipe."""
    data = msgspec.msgpack.encode(content)
    return FRAME_HEAD.pack(len(data)) + data

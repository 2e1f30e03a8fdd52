"""A worker as a child process: bytes in on stdin, bytes out on stdout, its log on stderr, dead when its parent is.

What a worker has to keep to: exit 0 and the answer on stdout; or exit 1 and one line of JSON
``{"code": …, "public": …}`` on stdout. Any other end is a worker that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.runtime.leash import leashed

__all__ = ["MAX_ANSWER", "WORKER_DIED", "WorkerJob", "public_error", "run_worker"]

MAX_ANSWER = 1 << 24
"""Most bytes of a worker's answer, as of an outcome in the registry."""

WORKER_DIED = "node.worker-died"

_CHUNK = 1 << 16
_REFUSED = 1  # exit status of a worker that says why
_GRACE_S = 5.0  # between SIGTERM and SIGKILL
_CODE = re.compile(r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+)+")
_MOST_TEXT = 1024  # characters of public texts, as on the wire


@dataclass(frozen=True)
class WorkerJob:
    """How to run a worker.

    Args:
        command: Absolute path of a program and its arguments.
        log: File to which its stderr is appended.
        timeout_s: Longest life in seconds; None = as long as it takes.
        max_answer: Most bytes of its answer.
    """

    command: tuple[str, ...]
    log: Path
    timeout_s: float | None = None
    max_answer: int = MAX_ANSWER


class _Said(msgspec.Struct):
    code: str
    public: str


def public_error(code: str, text: str, otherwise: str) -> FedCreditError:
    """An error that another process reports; its words are shown only if they look like a code and one line of text.

    Args:
        code: As reported.
        text: As reported.
        otherwise: Code where that is none.
    """
    line = "".join(one if one.isprintable() else " " for one in text[:_MOST_TEXT]).strip()
    return PeerError(code if _CODE.fullmatch(code) and len(code) <= 64 else otherwise, line or "no reason given")


async def run_worker(job: WorkerJob, payload: bytes) -> bytes:
    """Runs a worker to its end; a cancelled call kills it.

    Raises:
        PeerError: it refused or failed, and said why; or its answer is larger than allowed.
        TransportError: it died, or did not end in time.
    """
    job.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *leashed(job.command), stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True
        )
    try:
        async with asyncio.timeout(job.timeout_s):
            feeding = asyncio.create_task(_feed(process, payload))
            answer = await _drain(process, job.max_answer)
            await feeding
            status = await process.wait()
    except TimeoutError:
        raise TransportError("node.worker-late", f"the worker did not end within {job.timeout_s:g} s") from None
    finally:
        await _end(process)
    if status == 0:
        return answer
    if status == _REFUSED:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            said = msgspec.json.decode(answer, type=_Said)
            raise public_error(said.code, said.public, "node.worker-failed")
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise TransportError(WORKER_DIED, f"the worker ended by {how}; {job.log.name} at that house says why")


async def _feed(process: Process, payload: bytes) -> None:
    stdin = process.stdin
    if stdin is not None:
        with contextlib.suppress(ConnectionError):
            stdin.write(payload)
            await stdin.drain()
        stdin.close()


async def _drain(process: Process, most: int) -> bytes:
    answer = bytearray()
    while process.stdout is not None and (chunk := await process.stdout.read(_CHUNK)):
        answer += chunk
        if len(answer) > most:
            raise PeerError("node.worker-oversize", f"the worker's answer is longer than {most} bytes")
    return bytes(answer)


async def _end(process: Process) -> None:
    """Ends the worker and whatever it has started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        if process.returncode is not None:
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S)

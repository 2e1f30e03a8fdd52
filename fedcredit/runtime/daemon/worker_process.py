"""A worker as a child process: bytes in on stdin, bytes out on stdout, its log on stderr, dead when its parent is.

What a worker has to keep to: exit 0 and the answer on stdout; or exit 2 or 3 and, as the last line on stderr,
``error: public text [code]``. Any other end is a worker that died.
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
from typing import Any

from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.runtime.daemon.leash import leashed

__all__ = ["MAX_ANSWER", "WORKER_DIED", "WorkerJob", "public_error", "run_worker"]

MAX_ANSWER = 1 << 24
"""Most bytes of a worker's answer, as of an outcome in the registry."""

WORKER_DIED = "node.worker-died"

_CHUNK = 1 << 16
_REFUSED = frozenset({2, 3})  # exit status of a worker that says why
_LINE = re.compile(r"error: (?P<text>.*?)(?: \[(?P<code>[a-z][a-z0-9.-]*)\])?")
_TAIL = 8192  # bytes of stderr that are looked at for the last line
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
    process = await asyncio.create_subprocess_exec(
        *leashed(job.command), stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    others: list[asyncio.Task[Any]] = [asyncio.create_task(_feed(process, payload))]
    try:
        async with asyncio.timeout(job.timeout_s):
            logging = asyncio.create_task(_log(process, job.log))
            others.append(logging)
            answer = await _drain(process, job.max_answer)
            status = await process.wait()
            last = await logging
    except TimeoutError:
        raise TransportError("node.worker-late", f"the worker did not end within {job.timeout_s:g} s") from None
    finally:
        await _end(process)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    if status == 0:
        return answer
    said = _LINE.fullmatch(last)
    if status in _REFUSED and said is not None:
        raise public_error(said["code"] or "", said["text"], "node.worker-failed")
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise TransportError(WORKER_DIED, f"the worker ended by {how}; {job.log.name} at that house says why")


async def _feed(process: Process, payload: bytes) -> None:
    stdin = process.stdin
    if stdin is not None:
        with contextlib.suppress(ConnectionError):
            stdin.write(payload)
            await stdin.drain()
        stdin.close()


async def _log(process: Process, log: Path) -> str:
    """Appends the worker's stderr to a log; returns its last line."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    tail = b""
    with log.open("ab", buffering=0) as file:
        while process.stderr is not None and (chunk := await process.stderr.read(_CHUNK)):
            file.write(chunk)
            tail = (tail + chunk)[-_TAIL:]
    return tail.decode("utf-8", "replace").strip().rpartition("\n")[2]


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

"""Shards in processes of their own: SEAL's binding holds the interpreter's lock, so threads would not help.

A worker is a fresh interpreter that reads length-prefixed messages from its standard input and answers on its standard
output. It has the answerer's grouping and the asker's public key, no other secret, and ends when its input closes:
when its owner closes it, drops it or dies. Nothing is forked and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

import fedcredit
from fedcredit.crypto.bfv_shard import Shard, ShardTask
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.errors import PeerError, TransportError

__all__ = ["ShardProcess", "serve"]

_LENGTH = struct.Struct("<Q")
_PATIENCE_S = 5.0


class _Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request: bytes
    masks: bytes


class _Done(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    answer: bytes = b""
    code: str = ""
    public: str = ""


class ShardProcess:
    """A shard in another process; `start` and `finish` in turn, so that several work at once.

    Args:
        task: What the shard does.
    """

    def __init__(self, task: ShardTask) -> None:
        environment = dict(os.environ, PYTHONPATH=str(Path(fedcredit.__file__).parent.parent))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedcredit.crypto.bfv_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # an interrupt ends the owner, whose end closes the input
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._send(msgspec.msgpack.encode(task))

    def start(self, request: bytes, masks: NDArray[np.uint64]) -> None:
        """Hands over one request."""
        self._send(msgspec.msgpack.encode(_Work(request=request, masks=masks.astype("<u8").tobytes())))

    def finish(self) -> bytes:
        """The shard's answer to the request handed over last.

        Raises:
            PeerError: the request was malformed.
            TransportError: the process has ended.
        """
        if self._process.stdout is None:
            raise TransportError("bfv.worker", "a worker process has no output")
        data = _read(self._process.stdout)
        if data is None:
            raise TransportError("bfv.worker", "a worker process ended before it answered")
        done = msgspec.msgpack.decode(data, type=_Done)
        if done.code:
            raise PeerError(done.code, done.public)
        return done.answer

    def close(self) -> None:
        """Ends the process; it may be called twice."""
        self._end()

    def _send(self, data: bytes) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            raise TransportError("bfv.worker", "the worker process was closed")
        try:
            _write(self._process.stdin, data)
        except OSError:
            raise TransportError("bfv.worker", "a worker process ended before it was asked") from None


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """The worker's loop: one task, then requests until the input closes.

    Args:
        source: Where the task and the requests come from.
        sink: Where the answers go.
    """
    data = _read(source)
    if data is None:
        return
    shard: Shard | None = None
    refused = _Done()
    try:
        shard = Shard(msgspec.msgpack.decode(data, type=ShardTask), SystemEntropy())
    except PeerError as error:  # told at the first request, where the owner listens
        refused = _Done(code=error.code, public=error.public)
    while (data := _read(source)) is not None:
        _write(sink, msgspec.msgpack.encode(refused if shard is None else _answer(shard, data)))


def _answer(shard: Shard, data: bytes) -> _Done:
    work = msgspec.msgpack.decode(data, type=_Work)
    try:
        return _Done(answer=shard.answer(work.request, np.frombuffer(work.masks, dtype="<u8")))
    except PeerError as error:
        return _Done(code=error.code, public=error.public)


def _read(source: IO[bytes]) -> bytes | None:
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = source.read(size)
    return data if len(data) == size else None


def _write(sink: IO[bytes], data: bytes) -> None:
    sink.write(_LENGTH.pack(len(data)))
    sink.write(data)
    sink.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet flushed has no reader any more
                pipe.close()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)

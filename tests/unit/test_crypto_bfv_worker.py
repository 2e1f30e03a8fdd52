"""Workers answer, report, and always end."""

from __future__ import annotations

import gc
import io
import os
import struct
import subprocess

import msgspec
import numpy as np
import pytest

from fedcredit.crypto.bfv import SecretContext
from fedcredit.crypto.bfv_shard import ShardTask, answer_size
from fedcredit.crypto.bfv_sum import BfvAnswerer, BfvAsker, Resources
from fedcredit.crypto.bfv_worker import ShardProcess, serve
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.profiles import BFV_8192, derive
from fedcredit.errors import PeerError, TransportError

ROWS, OUTPUTS = 40, 20


def frame(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def unframe(data: bytes) -> list[dict[str, object]]:
    found = []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(msgspec.msgpack.decode(data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def make_task(secret: SecretContext, public: bytes | None = None) -> ShardTask:
    return ShardTask(
        plain_bits=20,
        public=secret.public_bytes() if public is None else public,
        rows=ROWS,
        first=0,
        outputs=OUTPUTS,
        codes=(np.arange(ROWS) % OUTPUTS).astype("<i4").tobytes(),
        offsets=(0,),
        weights=b"",
        columns=(),
        memory_bytes=1 << 24,
    )


def work(request: bytes) -> bytes:
    return msgspec.msgpack.encode({"request": request, "masks": bytes(8 * OUTPUTS)})


def test_the_loop_answers_refuses_and_goes_on() -> None:
    secret = SecretContext(20)
    request = secret.encrypt_seeded(np.ones(ROWS, np.uint64))
    source = io.BytesIO(b"".join(map(frame, [msgspec.msgpack.encode(make_task(secret)), work(b"?"), work(request)])))
    sink = io.BytesIO()
    serve(source, sink)
    refused, done = unframe(sink.getvalue())
    assert refused["code"] == "bfv.length"
    assert isinstance(done["answer"], bytes)
    assert len(done["answer"]) == 2 * answer_size(8) + answer_size(4)


def test_a_malformed_key_is_told_at_the_first_request() -> None:
    secret = SecretContext(20)
    sink = io.BytesIO()
    task = msgspec.msgpack.encode(make_task(secret, secret.public_bytes()[:-1]))
    serve(io.BytesIO(frame(task) + frame(work(b""))), sink)
    assert unframe(sink.getvalue())[0]["code"] == "bfv.length"


@pytest.mark.parametrize("cut", [0, 7, 8, 100])
def test_a_cut_stream_ends_the_loop(cut: int) -> None:
    sink = io.BytesIO()
    serve(io.BytesIO(frame(msgspec.msgpack.encode(make_task(SecretContext(20))))[:cut]), sink)
    assert sink.getvalue() == b""


def answerer_with_workers() -> tuple[BfvAsker, BfvAnswerer, list[subprocess.Popen[bytes]]]:
    parameters = derive(BFV_8192, ROWS, 5)
    asker = BfvAsker(parameters)
    asker.accept_hints("p", b"", OUTPUTS)
    grouping = Grouping((np.arange(ROWS) % OUTPUTS).astype(np.int32)[:, None], (OUTPUTS,))
    answerer = BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy(), Resources(3))
    return asker, answerer, [other._process for other in answerer._others]


def test_workers_end_when_closed_and_when_dropped() -> None:
    asker, answerer, processes = answerer_with_workers()
    assert len(processes) == 2
    assert all(process.poll() is None for process in processes)
    answerer.close()
    answerer.close()
    assert [process.poll() for process in processes] == [0, 0]
    with pytest.raises(TransportError, match="closed"):
        answerer.answer(asker.encrypt(np.ones(ROWS, np.int64), os.urandom(32))[0])
    _, dropped, processes = answerer_with_workers()
    del dropped
    gc.collect()
    assert [process.poll() for process in processes] == [0, 0]


def test_a_dead_worker_is_an_error_and_ends_the_others() -> None:
    asker, answerer, processes = answerer_with_workers()
    request, _ = asker.encrypt(np.ones(ROWS, np.int64), os.urandom(32))
    processes[0].kill()
    processes[0].wait()
    for _ in range(2):
        with pytest.raises(TransportError, match="worker process"):
            answerer.answer(request)
    assert processes[1].poll() is not None


def test_a_refused_setup_leaves_no_worker_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ShardProcess] = []
    first = ShardProcess.__init__

    def note(self: ShardProcess, task: ShardTask) -> None:
        first(self, task)
        started.append(self)

    monkeypatch.setattr(ShardProcess, "__init__", note)
    parameters = derive(BFV_8192, ROWS, 5)
    grouping = Grouping((np.arange(ROWS) % OUTPUTS).astype(np.int32)[:, None], (OUTPUTS,))
    with pytest.raises(PeerError):
        BfvAnswerer(parameters, b"no key", grouping, SystemEntropy(), Resources(2))
    assert [other._process.poll() for other in started] == [0]

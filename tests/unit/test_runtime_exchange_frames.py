"""Frames, limits and what gRPC reads from the environment."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from fedcredit.errors import BoundError, PeerError, SpecError, TransportError
from fedcredit.runtime.exchange.environment import ENVIRONMENT, pin_tls13
from fedcredit.runtime.exchange.frames import (
    Alive,
    Beat,
    Chunk,
    Head,
    Join,
    Leave,
    Receipt,
    Refused,
    Seen,
    Target,
    Welcome,
    encode_frame,
    read_from_exchange,
    read_from_party,
)
from fedcredit.runtime.exchange.limits import FRAME_BYTES, HEADER_BYTES, TRANSPORT_BYTES, LinkLimits, ServerLimits
from fedcredit.runtime.exchange.tls import known_peer

HEAD = Head(sender="bank", recipient="tax", sync=1, attempt=2, sequence=3, sealed=16)
CHUNK = Chunk(sender="bank", attempt=2, index=0, to=[Target("tax", 1, 2), Target("customs", 3, 4)])
RECEIPT = Receipt(sender="bank", recipient="tax", sync=1, attempt=2, next=3, index=0, credit=-5)
BOTH: list[tuple[Any, bytes]] = [
    (HEAD, bytes(16)),
    (HEAD, bytes(40)),
    (CHUNK, bytes(17)),
    (RECEIPT, b""),
    (Beat(), b""),
]
PARTY: list[tuple[Any, bytes]] = [
    (Join(run="r", party="bank", attempt=1, version=1), b""),
    (Alive(token=bytes(16)), b""),
    (Beat(waiting_for="tax"), b""),
    (Leave(), b""),
]
EXCHANGE: list[tuple[Any, bytes]] = [
    (Welcome(token=bytes(16), window=5), b""),
    (Seen(party="tax", connected=True, stream=4, seconds=1.5, waiting_for=""), b""),
    (Refused(code="run.stopped", text="why"), b""),
]


@pytest.mark.parametrize(("frame", "raw"), BOTH + PARTY)
def test_frames_of_a_party_come_back(frame: Any, raw: bytes) -> None:
    data = encode_frame(frame, raw[:8], raw[8:])
    found, start = read_from_party(data)
    assert (found, data[start:]) == (frame, raw)


@pytest.mark.parametrize(("frame", "raw"), BOTH + EXCHANGE)
def test_frames_of_the_exchange_come_back(frame: Any, raw: bytes) -> None:
    data = encode_frame(frame, raw)
    found, start = read_from_exchange(data)
    assert (found, data[start:]) == (frame, raw)


def test_each_side_has_its_own_frames() -> None:
    for frame, raw in PARTY:
        if not isinstance(frame, Beat):
            with pytest.raises(PeerError, match=r"exchange\.malformed"):
                read_from_exchange(encode_frame(frame, raw))
    for frame, raw in EXCHANGE:
        with pytest.raises(PeerError, match=r"exchange\.malformed"):
            read_from_party(encode_frame(frame, raw))


@pytest.mark.parametrize(("frame", "raw"), BOTH)
def test_every_cut_is_seen(frame: Any, raw: bytes) -> None:
    data = encode_frame(frame, raw)
    _, start = read_from_party(data)
    for size in range(start):
        with pytest.raises(PeerError):
            read_from_party(data[:size])


@pytest.mark.parametrize(
    ("frame", "raw"),
    [
        (HEAD, bytes(15)),
        (HEAD, bytes(32)),  # a chunk is longer than its tag
        (HEAD, bytes(16 + (1 << 20) + 1)),
        (CHUNK, bytes(16)),
        (CHUNK, bytes((1 << 20) + 1)),
        (RECEIPT, b"x"),
        (Leave(), b"x"),
    ],
)
def test_raw_bytes_stay_within_bounds(frame: Any, raw: bytes) -> None:
    with pytest.raises(PeerError, match=r"exchange\.malformed"):
        read_from_party(encode_frame(frame, raw))


def test_other_encodings_of_a_header_are_refused() -> None:
    fields = {"f": "beat", "waiting_for": "tax"}
    others: list[object] = [
        {**fields, "more": 1},
        dict(reversed(fields.items())),
        {**fields, "waiting_for": "x" * 129},
        [],
    ]
    for content in others:
        head = msgspec.msgpack.encode(content)
        with pytest.raises(PeerError, match=r"exchange\.malformed"):
            read_from_party(len(head).to_bytes(2, "big") + head)
    many = [Target("tax", 0, 0)] * 65
    with pytest.raises(PeerError, match=r"exchange\.malformed"):
        read_from_party(encode_frame(msgspec.structs.replace(CHUNK, to=many), bytes(17)))


def test_the_largest_frame_fits_and_one_byte_more_does_not() -> None:
    names = [Target("\U0001f3e6" * 127 + chr(0x4E00 + number), 2**53, 2**53) for number in range(64)]
    chunk = Chunk(sender="\U0001f3e6" * 128, attempt=2**53, index=2**53, to=names)
    data = encode_frame(chunk, bytes(1 << 20))
    assert read_from_party(data)[0] == chunk
    assert len(data) <= FRAME_BYTES < TRANSPORT_BYTES
    with pytest.raises(PeerError, match=r"exchange\.oversize"):
        read_from_party(bytes(FRAME_BYTES + 1))
    with pytest.raises(BoundError, match=r"exchange\.header"):
        encode_frame(Beat(waiting_for="x" * HEADER_BYTES))


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(SpecError, match=r"silence_s is 0, a number above 0"):
        LinkLimits(silence_s=0)
    with pytest.raises(SpecError, match=r"link_window of 1000, at least"):
        LinkLimits(link_window=1000)
    with pytest.raises(SpecError, match=r"run_window of 1000, at least"):
        ServerLimits(run_window=1000)
    with pytest.raises(SpecError, match=r"max_runs is -1"):
        ServerLimits(max_runs=-1)


def test_what_grpc_reads_is_set_unless_an_operator_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.delenv("GRPC_SSL_CIPHER_SUITES", raising=False)
    pin_tls13()
    assert os.environ["GRPC_SSL_CIPHER_SUITES"] == ENVIRONMENT["GRPC_SSL_CIPHER_SUITES"]
    assert os.environ["GRPC_VERBOSITY"] == "DEBUG"
    monkeypatch.delenv("GRPC_SSL_CIPHER_SUITES")


def test_callers_without_tls_1_3_or_a_certificate_are_nobody() -> None:
    with pytest.raises(TransportError, match=r"with no TLS, not TLS 1\.3 \[exchange\.tls-version\]"):
        known_peer({}, {})
    with pytest.raises(TransportError, match=r"TLSv1\.2"):
        known_peer({"ssl_tls_version": [b"TLSv1.2"]}, {})
    with pytest.raises(TransportError, match=r"exchange\.certificate"):
        known_peer({"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [b"no certificate"]}, {})
    with pytest.raises(TransportError, match=r"exchange\.certificate"):
        known_peer({"ssl_tls_version": [b"TLSv1.3"]}, {})

"""Codecs: what goes in comes out, and hostile bytes give one named error."""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcredit.errors import BoundError, PeerError
from fedcredit.types import PartyId
from fedcredit.wire.arrays import pack_bits, pack_int64, packed_size, unpack_bits, unpack_int64
from fedcredit.wire.envelope import Expected, Route, SigningKey, open_envelope, seal
from fedcredit.wire.message import Finite, Message, Part, decode, encode

_KEY = SigningKey(b"k" * 32)
_EXPECTED = Expected("run", PartyId("bank"), PartyId("tax"), 0, 1000, {PartyId("bank"): _KEY.public})
_SEALED = seal(_KEY, Route("run", "probe", "start", PartyId("bank"), PartyId("tax"), 0), "probe.all", b"body")


class Inner(Part, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(max_length=20)]
    level: int = 0


class Everything(Message, frozen=True, kw_only=True, tag="probe.all"):
    raw: bytes
    text: str
    number: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    ratio: Finite
    flag: bool
    many: list[int]
    rows: tuple[bytes, ...]
    mode: Literal["a", "b"]
    parts: list[Inner]


_INT = st.integers(-(2**63), 2**63 - 1)
_MESSAGES = st.builds(
    Everything,
    raw=st.binary(max_size=50),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    number=_INT,
    ratio=st.floats(allow_nan=False, allow_infinity=False, width=32),
    flag=st.booleans(),
    many=st.lists(_INT, max_size=5),
    rows=st.lists(st.binary(max_size=5), max_size=3).map(tuple),
    mode=st.sampled_from(["a", "b"]),
    parts=st.lists(st.builds(Inner, name=st.text("xyz", max_size=20), level=st.integers(0, 9)), max_size=3),
)
_SAMPLE = Everything(
    raw=b"\x00\x01", text="é", number=-5, ratio=0.5, flag=True, many=[1, 300], rows=(b"z",), mode="a",
    parts=[Inner(name="x")],
)  # fmt: skip


def _refused(data: bytes) -> None:
    """Decodes to the very bytes given, or ends in PeerError; any other exception fails the test."""
    try:
        message = decode(Everything, data)
    except PeerError:
        return
    assert encode(message) == data


@given(_MESSAGES)
def test_a_message_survives_the_wire(message: Everything) -> None:
    data = encode(message)
    assert decode(Everything, data) == message


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x91" * 200_000)
@example(b"\x81" * 200_000)
@example(b"\x82\xa4kind\xa9probe.all\xa3raw\xc6\xff\xff\xff\xff")
@example(b"\x82\xa4kind\xa9probe.all\xa4many\xdd\xff\xff\xff\xff\x01")
@example(b"\x82\xa4kind\xa9probe.all\xa4many" + b"\x91" * 100_000)
@example(b"\x82\xa4kind\xa9probe.all\xa1\xff\x01")
@example(b"\x82\xa4kind\xa9probe.all\xa4text\xa2\xff\xfe")
def test_random_bytes_give_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(Everything, data)


@given(_MESSAGES, st.data())
def test_flipped_and_cut_bytes_never_decode_to_something_else(message: Everything, data: st.DataObject) -> None:
    good = encode(message)
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    flipped = bytearray(good)
    flipped[at // 8] ^= 1 << (at % 8)
    _refused(bytes(flipped))
    for wrong in (good[: at // 8], good + b"\x00", good + good):
        with pytest.raises(PeerError):
            decode(Everything, wrong)


def _map(**changes: object) -> bytes:
    fields: dict[str, object] = {"kind": "probe.all", **msgspec.to_builtins(_SAMPLE, builtin_types=(bytes,))}
    fields = {"kind": fields.pop("kind"), **fields}
    return msgspec.msgpack.encode({**fields, **changes})


def test_the_probe_map_is_the_canonical_form() -> None:
    assert _map() == encode(_SAMPLE)


@pytest.mark.parametrize(
    "data",
    [
        _map(more=1),
        _map(ratio=float("nan")),
        _map(ratio=float("inf")),
        _map(ratio=1),
        _map(flag=1),
        _map(mode="c"),
        _map(number=2**63),
        _map(parts=[{"name": "x"}]),
        _map(parts=[{"name": "x" * 21, "level": 0}]),
        _map(kind="probe.other"),
        encode(_SAMPLE).replace(b"\xa6number\xfb", b"\xa6number\xd0\xfb"),
        encode(_SAMPLE).replace(b"\xa6number\xfb", b"\xa6number\xd3" + struct.pack(">q", -5)),
    ],
)
def test_other_encodings_and_values_out_of_bounds_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(Everything, data)


def test_fields_in_another_order_are_refused() -> None:
    fields = msgspec.msgpack.decode(encode(_SAMPLE))
    with pytest.raises(PeerError, match="canonical"):
        decode(Everything, msgspec.msgpack.encode(dict(reversed(fields.items()))))


def test_a_message_beyond_its_own_bounds_does_not_leave() -> None:
    with pytest.raises(BoundError, match="bounds"):
        encode(msgspec.structs.replace(_SAMPLE, parts=[Inner(name="x" * 21)]))


@given(st.binary(max_size=400))
def test_random_bytes_are_no_envelope(data: bytes) -> None:
    with pytest.raises(PeerError):
        open_envelope(data, _EXPECTED)


@given(st.integers(0, 8 * len(_SEALED) - 1))
def test_no_bit_of_an_envelope_can_be_flipped(at: int) -> None:
    flipped = bytearray(_SEALED)
    flipped[at // 8] ^= 1 << (at % 8)
    with pytest.raises(PeerError):
        open_envelope(bytes(flipped), _EXPECTED)


@given(st.lists(_INT, max_size=20))
def test_words_survive_packing(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert unpack_int64(pack_int64(array), len(values)).tolist() == values


@given(st.integers(1, 32), st.lists(st.integers(0, 2**32 - 1), max_size=40))
def test_bits_survive_packing(bits: int, values: list[int]) -> None:
    array: NDArray[np.uint32] = np.array([value & ((1 << bits) - 1) for value in values], dtype=np.uint32)
    data = pack_bits(array, bits)
    assert len(data) == packed_size(len(values), bits)
    assert unpack_bits(data, len(values), bits).tolist() == array.tolist()
    stream = sum(int(value) << (bits * place) for place, value in enumerate(array))
    assert int.from_bytes(data, "little") == stream


@given(st.integers(1, 32), st.integers(0, 30), st.binary(max_size=130))
def test_packed_bytes_have_one_reading_or_are_refused(bits: int, count: int, data: bytes) -> None:
    try:
        values = unpack_bits(data, count, bits)
    except PeerError:
        return
    assert pack_bits(values, bits) == data

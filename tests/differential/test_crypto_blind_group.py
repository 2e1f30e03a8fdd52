"""The library's group against a slow one written from the text of RFC 9496: same points, same refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcredit.crypto.blind_group import ORDER, Bytes, add, from_uniform, times, times_base, validate
from fedcredit.errors import PeerError

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]
"""x, y, z, t of an extended twisted Edwards point with a = -1."""

IDENTITY: Point = (0, 1, 1, 0)
SCALARS = st.integers(1, ORDER - 1)


def _negative(value: int) -> bool:
    return value % P % 2 == 1


def _abs(value: int) -> int:
    value %= P
    return P - value if _negative(value) else value


def _sqrt_ratio(u: int, v: int) -> tuple[bool, int]:
    """Section 4.2."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    correct, flipped = check == u % P, check == -u % P
    flipped_i = check == -u * SQRT_M1 % P
    if flipped or flipped_i:
        r = SQRT_M1 * r % P
    return correct or flipped, _abs(r)


INVSQRT_A_MINUS_D = _sqrt_ratio(1, -1 - D)[1]
SQRT_AD_MINUS_ONE = 25063068953384623474111414158702152701244531502492656460079210482610430750235  # the odd root


def _decode(data: bytes) -> Point | None:
    """Section 4.3.1."""
    s = int.from_bytes(data, "little")
    if s >= P or _negative(s):
        return None
    ss = s * s % P
    u1, u2 = (1 - ss) % P, (1 + ss) % P
    v = (-(D * u1 * u1) - u2 * u2) % P
    square, inverse = _sqrt_ratio(1, v * u2 * u2 % P)
    x = _abs(2 * s * inverse * u2)
    y = u1 * inverse * inverse * u2 * v % P
    t = x * y % P
    return None if not square or _negative(t) or y == 0 else (x, y, 1, t)


def _encode(point: Point) -> bytes:
    """Section 4.3.2."""
    x0, y0, z0, t0 = point
    u1, u2 = (z0 + y0) * (z0 - y0) % P, x0 * y0 % P
    _, inverse = _sqrt_ratio(1, u1 * u2 * u2 % P)
    den1, den2 = inverse * u1 % P, inverse * u2 % P
    z_inv = den1 * den2 * t0 % P
    if _negative(t0 * z_inv):
        x, y, den = y0 * SQRT_M1 % P, x0 * SQRT_M1 % P, den1 * INVSQRT_A_MINUS_D % P
    else:
        x, y, den = x0, y0, den2
    if _negative(x * z_inv):
        y = -y % P
    return _abs(den * (z0 - y)).to_bytes(32, "little")


def _add(p: Point, q: Point) -> Point:
    """Hisil et al., unified addition for a = -1."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * D * p[3] * q[3], 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    total = IDENTITY
    for bit in f"{scalar:b}":
        total = _add(total, total)
        if bit == "1":
            total = _add(total, point)
    return total


def _map(data: bytes) -> Point:
    """Section 4.3.4, MAP."""
    t = int.from_bytes(data, "little") % 2**255 % P
    r = SQRT_M1 * t * t % P
    u = (r + 1) * (1 - D * D) % P
    v = (-1 - r * D) * (r + D) % P
    square, s = _sqrt_ratio(u, v)
    if not square:
        s = -_abs(s * t) % P
    c = -1 if square else r
    n = (c * (r - 1) * pow(D - 1, 2, P) - v) % P
    w0, w1 = 2 * s * v % P, n * SQRT_AD_MINUS_ONE % P
    w2, w3 = (1 - s * s) % P, (1 + s * s) % P
    return w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P


def _one(data: bytes) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8).reshape(1, -1)


def _scalar(value: int) -> Bytes:
    return np.frombuffer(value.to_bytes(32, "little"), dtype=np.uint8).copy()


GENERATOR = _decode(times_base(_scalar(1).reshape(1, 32))[0].tobytes()) or IDENTITY

# The generator with the highest bit set: libsodium's own check would let it pass.
GENERATOR_AGAIN = (int.from_bytes(_encode(GENERATOR), "little") + 2**255).to_bytes(32, "little")


def test_the_constants_are_what_they_are_named() -> None:
    assert SQRT_AD_MINUS_ONE**2 % P == (-D - 1) % P
    assert INVSQRT_A_MINUS_D**2 * (-1 - D) % P == 1


def test_the_twin_knows_the_generator() -> None:
    assert _encode(GENERATOR).hex().startswith("e2f2ae0a6abc4e71")
    assert _encode(_times(ORDER, GENERATOR)) == bytes(32)


@given(left=SCALARS, right=SCALARS)
@settings(max_examples=25, deadline=None)
def test_products_and_sums_are_equal(left: int, right: int) -> None:
    ours = times_base(np.stack([_scalar(left), _scalar(right)]))
    points = _times(left, GENERATOR), _times(right, GENERATOR)
    assert [one.tobytes() for one in ours] == [_encode(one) for one in points]
    if (left + right) % ORDER:
        assert add(ours[0], ours[1]).tobytes() == _encode(_add(*points))
    scalar = _scalar(right)
    assert times(ours[:1], scalar.ctypes.data)[0].tobytes() == _encode(_times(right, points[0]))


@given(uniform=st.binary(min_size=64, max_size=64))
@example(bytes(64))
@example(b"\xff" * 64)
@settings(max_examples=50, deadline=None)
def test_the_one_way_map_is_equal(uniform: bytes) -> None:
    twin = _add(_map(uniform[:32]), _map(uniform[32:]))
    assert from_uniform(_one(uniform))[0].tobytes() == _encode(twin)


@given(data=st.binary(min_size=32, max_size=32), even=st.booleans())
@example(data=(P - 1).to_bytes(32, "little"), even=False)
@example(data=GENERATOR_AGAIN, even=False)
@example(data=P.to_bytes(32, "little"), even=False)
@example(data=bytes(32), even=False)
@settings(max_examples=200, deadline=None)
def test_the_same_bytes_are_refused(data: bytes, *, even: bool) -> None:
    if even:  # half of the even field elements encode a point, of random bytes an eighth
        data = (int.from_bytes(data, "little") % P & ~1).to_bytes(32, "little")
    twin = _decode(data)
    if twin is None or _encode(twin) == bytes(32):
        with pytest.raises(PeerError) as caught:
            validate(_one(data))
        assert caught.value.code == ("blind.encoding" if twin is None else "blind.identity")
    else:
        validate(_one(data))
        assert _encode(twin) == data

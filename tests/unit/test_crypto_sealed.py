"""Sealed heads and bodies: who can open what, and what nobody can make them do."""

from __future__ import annotations

import copy
import hashlib
import os
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcredit.crypto.sealed import OPENING_BYTES, TAG_BYTES, LinkKeys, OwnKeys, PeerKeys
from fedcredit.crypto.sealed_body import (
    LEAST_CHUNK,
    PLAIN_CHUNK,
    SEALED_CHUNK,
    BodyOpener,
    SealedBody,
    chunk_bytes,
    chunks_of,
)
from fedcredit.errors import BoundError, PeerError, SpecError
from fedcredit.types import PartyId, RunId

BANK, TAX, CUSTOMS = (PartyId(name) for name in ("bank", "tax", "customs"))
RUN = RunId("run-1")
MOST = 1 << 30


def public(own: OwnKeys) -> PeerKeys:
    pair = [X25519PrivateKey.from_private_bytes(raw).public_key() for raw in (own.ephemeral, own.static)]
    return PeerKeys(*(key.public_bytes_raw() for key in pair))


@dataclass
class Trio:
    """Three parties' keys."""

    own: dict[PartyId, OwnKeys]

    def keys(self, party: PartyId, run: RunId = RUN, context: bytes = b"spec") -> LinkKeys:
        peers = {name: public(own) for name, own in self.own.items() if name != party}
        return LinkKeys(run, party, self.own[party], peers, context)


@pytest.fixture
def trio() -> Trio:
    return Trio({name: OwnKeys(os.urandom(32), os.urandom(32)) for name in (BANK, TAX, CUSTOMS)})


def test_a_head_opens_for_its_recipient_alone(trio: Trio) -> None:
    sealer = trio.keys(BANK).sealer(TAX, 1)
    sequence, sealed = sealer.seal(b"a head")
    assert (sequence, len(sealed), sealer.next) == (0, len(b"a head") + TAG_BYTES, 1)
    assert trio.keys(TAX).opener(BANK, 1).open(0, sealed) == b"a head"
    assert b"a head" not in sealed
    with pytest.raises(PeerError, match=r"number 0 of bank are not bank's \[sealed\.forged\]"):
        trio.keys(CUSTOMS).opener(BANK, 1).open(0, sealed)


@pytest.mark.parametrize("what", ["run", "context", "attempt", "sequence", "direction", "static", "ephemeral"])
def test_nothing_opens_in_another_place(trio: Trio, what: str) -> None:
    keys = trio.keys(BANK)
    _, sealed = keys.sealer(TAX, 1).seal(b"x")
    reader, attempt, sequence = trio.keys(TAX), 1, 0
    if what == "run":
        reader = trio.keys(TAX, RunId("run-2"))
    elif what == "context":
        reader = trio.keys(TAX, context=b"other spec")
    elif what == "attempt":
        attempt = 2
    elif what == "sequence":
        sequence = 1
    elif what == "direction":
        _, sealed = trio.keys(TAX).sealer(BANK, 1).seal(b"x")  # the reader's own bytes, sent back
    else:
        trio.own[BANK] = replace(trio.own[BANK], **{what: os.urandom(32)})
        reader = trio.keys(TAX)
    with pytest.raises(PeerError, match=r"sealed\.forged") as caught:
        reader.opener(BANK, attempt).open(sequence, sealed)
    assert caught.value.culprit == "bank"


def test_every_flipped_bit_is_seen(trio: Trio) -> None:
    _, sealed = trio.keys(BANK).sealer(TAX, 1).seal(b"head")
    opener = trio.keys(TAX).opener(BANK, 1)
    for bit in range(8 * len(sealed)):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PeerError):
            opener.open(0, bytes(forged))
    for cut in range(len(sealed)):
        with pytest.raises(PeerError):
            opener.open(0, sealed[:cut])


def test_the_keys_are_those_of_the_rfcs(trio: Trio) -> None:
    """The construction written down once more, from the primitives."""
    _, sealed = trio.keys(BANK).sealer(TAX, 7).seal(b"head")

    def joined(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(8, "big") + part for part in parts)

    def agree(own: bytes, theirs: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(theirs))

    product, attempt = b"fedcredit/sealed/v1", (7).to_bytes(8, "big")
    bank, tax = public(trio.own[BANK]), public(trio.own[TAX])
    secret = agree(trio.own[TAX].ephemeral, bank.ephemeral) + agree(trio.own[TAX].static, bank.static)
    salt = hashlib.sha256(joined(product, b"run-1", b"spec")).digest()
    publics = (bank.ephemeral, bank.static, tax.ephemeral, tax.static)
    info = joined(product, b"direction", b"bank", b"tax", attempt, *publics)
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
    place = joined(product, b"head", b"run-1", attempt, b"bank", b"tax") + bytes(12)
    assert ChaCha20Poly1305(key).decrypt(bytes(12), sealed, place) == b"head"


def test_a_nonce_cannot_come_twice(trio: Trio) -> None:
    keys = trio.keys(BANK)
    sealer = keys.sealer(TAX, 1)
    assert [sealer.seal(b"same")[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BoundError, match=r"attempt 1 towards tax is sealed already.*sealed\.twice"):
        keys.sealer(TAX, 1)
    keys.sealer(TAX, 2)
    keys.sealer(CUSTOMS, 1)
    for thing in (sealer, keys, SealedBody(b"x", shared=False)):
        with pytest.raises(BoundError, match=r"sealed\.copied"):
            copy.copy(thing)
        with pytest.raises(BoundError, match=r"sealed\.copied"):
            copy.deepcopy(thing)
    sealer._next = 1 << 32
    with pytest.raises(BoundError, match=r"sealed\.exhausted"):
        sealer.seal(b"")


def test_keys_do_not_show_themselves(trio: Trio) -> None:
    own = trio.own[BANK]
    assert own.static.hex() not in repr(own) + repr(trio.keys(BANK))
    assert repr(own) == "OwnKeys()"


@pytest.mark.parametrize("point", [0, 1])
@pytest.mark.parametrize("which", ["ephemeral", "static"])
def test_points_of_low_order_are_refused(trio: Trio, which: str, point: int) -> None:
    """RFC 7748 section 6.1: the result would be known to everyone."""
    peer = replace(public(trio.own[TAX]), **{which: point.to_bytes(32, "little")})
    with pytest.raises(PeerError, match=r"public key of tax is of low order.*sealed\.low-order"):
        LinkKeys(RUN, BANK, trio.own[BANK], {TAX: peer})


def test_keys_of_another_length_and_strangers_are_refused(trio: Trio) -> None:
    with pytest.raises(SpecError, match=r"private key of bank has 31 bytes"):
        LinkKeys(RUN, BANK, OwnKeys(bytes(31), bytes(32)), {})
    with pytest.raises(SpecError, match=r"public key of tax has 33 bytes"):
        LinkKeys(RUN, BANK, trio.own[BANK], {TAX: PeerKeys(bytes(33), bytes(32))})
    with pytest.raises(SpecError, match=r"sealed\.peers"):
        LinkKeys(RUN, BANK, trio.own[BANK], {BANK: public(trio.own[BANK])})
    keys = trio.keys(BANK)
    assert keys.peers == {TAX, CUSTOMS}
    with pytest.raises(SpecError, match=r"utility has no keys"):
        keys.sealer(PartyId("utility"), 1)
    with pytest.raises(BoundError, match=r"sealed\.attempt"):
        keys.opener(TAX, -1)


SIZES = [0, 1, LEAST_CHUNK, LEAST_CHUNK + 1, PLAIN_CHUNK - 1, PLAIN_CHUNK, 8 * PLAIN_CHUNK, 8 * PLAIN_CHUNK + 5]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shared", [False, True])
def test_bodies_come_back(size: int, *, shared: bool) -> None:
    body = os.urandom(size)
    sealed = SealedBody(body, shared=shared)
    assert len(sealed.opening) == OPENING_BYTES
    assert sealed.chunks == chunks_of(size) == -(-size // chunk_bytes(size))
    opener = BodyOpener(sealed.opening, BANK, MOST)
    chunks = [sealed.chunk(index) for index in range(sealed.chunks)]
    assert all(len(chunk) <= SEALED_CHUNK for chunk in chunks)
    assert [sealed.chunk(index) for index in range(sealed.chunks)] == chunks  # sealed once
    for index, chunk in enumerate(chunks):
        assert opener.next == index
        opener.add(chunk)
    assert opener.body() == body


def test_a_body_is_cut_into_eighths_between_two_bounds() -> None:
    assert [chunks_of(size) for size in (0, 1, LEAST_CHUNK, LEAST_CHUNK + 1, 4 * LEAST_CHUNK)] == [0, 1, 1, 2, 4]
    assert [chunks_of(size) for size in (8 * LEAST_CHUNK, 1_000_000, 8 * PLAIN_CHUNK)] == [8, 8, 8]
    assert chunks_of(80 * PLAIN_CHUNK) == 80


def test_two_bodies_never_share_a_key() -> None:
    first, second = SealedBody(b"same", shared=False), SealedBody(b"same", shared=False)
    assert first.opening[:32] != second.opening[:32]
    assert first.chunk(0) != second.chunk(0)


def test_a_body_that_changes_after_it_was_given_does_not_matter() -> None:
    given = bytearray(b"before")
    sealed = SealedBody(given, shared=False)  # type: ignore[arg-type]
    given[:] = b"after!"
    opener = BodyOpener(sealed.opening, BANK, MOST)
    opener.add(sealed.chunk(0))
    assert opener.body() == b"before"


def test_chunks_out_of_place_missing_or_changed_are_refused() -> None:
    sealed = SealedBody(os.urandom(2 * LEAST_CHUNK + 9), shared=False)
    opener = BodyOpener(sealed.opening, BANK, MOST)
    with pytest.raises(PeerError, match=r"sealed\.forged"):
        opener.add(sealed.chunk(1))
    opener.add(sealed.chunk(0))
    opener.check(0, sealed.chunk(0))
    with pytest.raises(PeerError, match=r"sealed\.forged"):
        opener.check(0, sealed.chunk(1))
    with pytest.raises(PeerError, match=r"bank sent 1 of 3 chunks"):
        opener.body()
    opener.add(sealed.chunk(1))
    flipped = bytearray(sealed.chunk(2))
    flipped[-1] ^= 1
    with pytest.raises(PeerError, match=r"sealed\.forged"):
        opener.add(bytes(flipped))
    opener.add(sealed.chunk(2))
    with pytest.raises(PeerError, match=r"more chunks than it announced"):
        opener.add(sealed.chunk(2))


def test_one_of_two_recipients_cannot_pass_off_another_body_to_the_other() -> None:
    """The tax office has the key of the body too; without the digest its forgery would open."""
    sealed = SealedBody(b"the bank's", shared=True)
    forged = SealedBody(b"the tax's!", shared=True)
    forged._cipher = ChaCha20Poly1305(sealed.opening[:32])
    opener = BodyOpener(sealed.opening, BANK, MOST)
    opener.add(forged.chunk(0))
    with pytest.raises(PeerError, match=r"claims to be bank's is not the one it announced \[sealed\.forged\]"):
        opener.body()


def test_openings_that_cannot_be_are_refused() -> None:
    with pytest.raises(PeerError, match=r"sealed\.opening"):
        BodyOpener(bytes(OPENING_BYTES - 1), BANK, MOST)
    with pytest.raises(PeerError, match=r"announces a body of 11 bytes, at most 10"):
        BodyOpener(SealedBody(bytes(11), shared=False).opening, BANK, 10)
    short = SealedBody(bytes(5), shared=False)
    lying = short.opening[:32] + (6).to_bytes(8, "big") + short.opening[40:]
    with pytest.raises(PeerError, match=r"sealed\.forged"):  # the length is bound into every chunk
        BodyOpener(lying, BANK, MOST).add(short.chunk(0))

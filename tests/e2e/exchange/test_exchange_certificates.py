"""Certificates past their time or not yet in it: the handshake ends, whoever's key it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from fedcredit.errors import TransportError
from fedcredit.types import PartyId

if TYPE_CHECKING:
    from tests.e2e.exchange.conftest import World

BANK = PartyId("bank")


def dated(world: World, start: dt.timedelta, end: dt.timedelta) -> Any:
    """The bank's own certificate, of the same key and authority, with other dates."""
    pem = world.pem[BANK]
    old = x509.load_pem_x509_certificate(pem.certificate)
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + start).not_valid_after(now + end)
    for one in old.extensions:
        builder = builder.add_extension(one.value, critical=one.critical)
    made = builder.sign(world.authority.key, hashes.SHA256())
    return replace(pem, certificate=made.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("start", "end", "taken"), [(-48, -1, False), (1, 48, False), (-48, 1, True)], ids=["expired", "early", "valid"]
)
def test_a_certificate_counts_in_its_time(
    world: World, run: Callable[[Any], Any], start: int, end: int, *, taken: bool
) -> None:
    async def test() -> None:
        tls = dated(world, dt.timedelta(hours=start), dt.timedelta(hours=end))
        async with world.exchange() as (server, port):
            quick: dict[str, Any] = {} if taken else {"reconnect_s": 0.3}
            link = world.link("bank", port, tls=tls, **quick)
            if taken:
                await link.open()
                assert list(server.snapshot().runs[world.RUN].connected) == [BANK]
                await link.close(flush=False)
                return
            with pytest.raises(TransportError, match=r"exchange\.unreachable"):
                await link.open()
            assert server.snapshot().runs[world.RUN].connected == {}

    run(test())

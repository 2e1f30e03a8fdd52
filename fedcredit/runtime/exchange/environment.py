"""What gRPC reads from the environment, once, when it is first imported; so this module does without it.

Its Python interface has no setting for the least TLS version. BoringSSL's list of cipher suites is for TLS 1.2 alone,
and suites for RSA keys cannot be served with a consortium's elliptic-curve certificates: with them no handshake below
TLS 1.3 succeeds. Its own log writes a line for every stranger that fails the handshake; whoever wants to fill a disk
would like that. `fedcredit.runtime.exchange.handshakes` reads these lines where they are wanted, and bounds them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["ENVIRONMENT", "VERBOSITY", "pin_tls13"]

VERBOSITY = "GRPC_VERBOSITY"
"""How much gRPC writes to standard error."""

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384", VERBOSITY: "NONE"}
)
"""For processes that listen or dial; values an operator has set himself are kept."""


def pin_tls13() -> None:
    """Sets what is not set: for this process if gRPC is not loaded yet, for those it starts in any case.

    Where it comes too late for this process, calls over older TLS are still refused, by name, once they are there.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)

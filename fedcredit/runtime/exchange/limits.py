"""How much of anything the exchange and its clients take: every queue, frame, wait and count has its bound here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fedcredit.crypto.sealed_body import SEALED_CHUNK
from fedcredit.errors import SpecError

__all__ = ["FRAME_BYTES", "HEADER_BYTES", "HEAD_BYTES", "TRANSPORT_BYTES", "LinkLimits", "ServerLimits"]

HEADER_BYTES = 48 * 1024
"""Most bytes of a frame's header; the largest names 64 recipients with names of 128 characters of 4 bytes."""

HEAD_BYTES = 64 * 1024
"""Most bytes of a sealed head."""

FRAME_BYTES = 2 + HEADER_BYTES + HEAD_BYTES + SEALED_CHUNK
"""Most bytes of a frame; a larger one is refused by name."""

TRANSPORT_BYTES = FRAME_BYTES + 64 * 1024
"""Where gRPC itself cuts a message off."""

_LEAST_WINDOW = 2 * FRAME_BYTES


@dataclass(frozen=True)
class ServerLimits:
    """Limits of the exchange.

    Args:
        link_window: Bytes that may be under way from one party to another and not yet taken by it.
        run_window: Bytes of one run the exchange holds at most, but for one frame of each stream.
        max_runs: Runs open at once; so the exchange holds at most ``max_runs * run_window``.
        max_members: Parties of a run.
        max_streams: Streams at once, those that have not said who they are included.
        max_streams_party: Streams of one party at once.
        max_connections: Transport connections at once.
        frames_per_s: Frames a stream may send each second, over a burst of as many; a faster one is read more slowly.
        handshake_s: Seconds from a connection to its TLS session, and from a stream to its complete join.
        heartbeat_s: Seconds between two heartbeats.
        silence_s: Seconds without a frame after which a stream counts as dead.
        stall_s: Seconds a reader may leave a frame unread before its stream is ended.
    """

    link_window: int = 16 << 20
    run_window: int = 64 << 20
    max_runs: int = 32
    max_members: int = 64
    max_streams: int = 1024
    max_streams_party: int = 40
    max_connections: int = 2048
    frames_per_s: int = 4000
    handshake_s: float = 10.0
    heartbeat_s: float = 2.0
    silence_s: float = 20.0
    stall_s: float = 20.0

    def __post_init__(self) -> None:
        _positive(self)
        for name in ("link_window", "run_window"):
            if getattr(self, name) < _LEAST_WINDOW:
                raise SpecError("exchange.limits", f"{name} of {getattr(self, name)}, at least {_LEAST_WINDOW} needed")


@dataclass(frozen=True)
class LinkLimits:
    """Limits of one party's end.

    Args:
        link_window: Bytes the party takes from one peer before its role asks for them, and bytes it keeps for one peer
            before `send` waits; one more payload may always be under way.
        max_payload: Largest body, in bytes.
        silence_s: Seconds without a frame from the exchange after which the connection counts as dead.
        heartbeat_s: Seconds between two heartbeats.
        ack_delay_s: Longest delay of an acknowledgement, so that one serves several payloads.
        flush_s: Longest wait of `close` for acknowledgements.
        window_wait_s: Longest wait of `send` for a peer that takes nothing.
        backoff_s: Longest pause between two attempts to connect; the first is a twentieth.
    """

    link_window: int = 16 << 20
    max_payload: int = 1 << 30
    silence_s: float = 20.0
    heartbeat_s: float = 2.0
    ack_delay_s: float = 0.02
    flush_s: float = 60.0
    window_wait_s: float = 3600.0
    backoff_s: float = 2.0

    def __post_init__(self) -> None:
        _positive(self)
        if self.link_window < _LEAST_WINDOW:
            raise SpecError("exchange.limits", f"link_window of {self.link_window}, at least {_LEAST_WINDOW} needed")


def _positive(limits: ServerLimits | LinkLimits) -> None:
    for one in fields(limits):
        value = getattr(limits, one.name)
        if not value > 0:
            raise SpecError("exchange.limits", f"{one.name} is {value}, a number above 0 is needed")

"""A node asks the coordinator how it stands there: whether its SuperNode was let in, and which roster is in force.

One unary gRPC method on the exchange's port, behind the same mutual TLS. A node is told of itself alone; whoever is no
node of the roster gets ``PERMISSION_DENIED`` and nothing else. It also shows that the exchange answers.

Guarantees: none of the answer's truth: it is for people and for the moment of a restart, and no run rests on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import grpc
import grpc.aio
import msgspec

from fedcredit.errors import FedCreditError, PolicyDenied
from fedcredit.runtime.daemon.status import SuperLinkView
from fedcredit.runtime.exchange.tls import KnownKey, client_credentials, client_options, known_peer
from fedcredit.runtime.flower_presence import NodeSeat
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind, Roster, split_address
from fedcredit.wire.message import Part, decode_struct, encode_struct

__all__ = ["SERVICE", "PresenceAnswer", "PresenceDesk", "Standing", "ask_presence"]

SERVICE = "fedcredit.House"
_METHOD = "Presence"
_MAX_BYTES = 4096
_Short = Annotated[str, msgspec.Meta(max_length=64)]


class PresenceAnswer(Part, frozen=True, kw_only=True):
    """How the asking node stands.

    Attributes:
        state: ``connected``, ``away`` (registered, not let in now), ``unregistered``, or ``unknown``.
        since: When that began, RFC 3339; "" = not known.
        roster_version: In force at the coordinator.
        roster_digest: Its digest.
    """

    state: _Short
    since: _Short
    roster_version: int
    roster_digest: Annotated[str, msgspec.Meta(max_length=64)]


class PresenceDesk:
    """Answers nodes.

    Args:
        roster: Who is who.
    """

    def __init__(self, roster: Roster) -> None:
        self._seats: Mapping[str, NodeSeat] | None = None
        self.renew(roster)

    def renew(self, roster: Roster) -> None:
        """Takes a new roster; counts from the next call."""
        self._roster = roster
        self._known = {one.tls_key_sha256: KnownKey(one.name, str(one.kind)) for one in roster.members.values()}

    def seat(self, seats: Mapping[str, NodeSeat] | None) -> None:
        """Takes what the SuperLink says of its nodes; None = not known."""
        self._seats = seats

    def answer(self, key: KnownKey) -> PresenceAnswer:
        """What a caller is told.

        Raises:
            PolicyDenied: it is no node.
        """
        if key.kind != MemberKind.NODE:
            raise PolicyDenied("presence.kind", f"{key.party} is a {key.kind}; only nodes are answered here")
        state, since = "unknown", ""
        if self._seats is not None:
            seat = self._seats.get(key.party)
            state = "unregistered" if seat is None else "connected" if seat.connected else "away"
            since = "" if seat is None else seat.since
        roster = self._roster
        return PresenceAnswer(state=state, since=since, roster_version=roster.version, roster_digest=roster.digest)

    def handler(self) -> grpc.GenericRpcHandler:
        """Handler to be added to the coordinator's server."""

        async def serve(_: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                return encode_struct(self.answer(known_peer(context.auth_context(), self._known)))
            except FedCreditError as error:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.public)

        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {_METHOD: grpc.unary_unary_rpc_method_handler(serve)}
        return grpc.method_handlers_generic_handler(SERVICE, methods)


@dataclass(frozen=True)
class Standing:
    """What a node found out about its line.

    Args:
        reachable: The exchange answered over mutual TLS.
        superlink: Whether its SuperNode was let in.
        roster_version: In force at the coordinator; 0 = not known.
    """

    reachable: bool
    superlink: SuperLinkView
    roster_version: int = 0


async def ask_presence(home: Home, timeout_s: float) -> Standing:
    """Asks the coordinator; an older one that knows no such question is reachable, and no more is known."""
    address = home.roster.exchange
    options = client_options(split_address(address)[0])
    async with grpc.aio.secure_channel(address, client_credentials(home.tls), options) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), timeout_s)
        except TimeoutError:
            return Standing(False, SuperLinkView())
        try:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{_METHOD}")
            raw = await call(b"", timeout=timeout_s)
            if len(raw) > _MAX_BYTES:
                return Standing(True, SuperLinkView())
            answer = decode_struct(PresenceAnswer, raw, "the coordinator's answer")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                return Standing(True, SuperLinkView(state="refused", why=_STRANGER))
            return Standing(error.code() is grpc.StatusCode.UNIMPLEMENTED, SuperLinkView())
        except FedCreditError:
            return Standing(True, SuperLinkView())
    return Standing(True, _view(home, answer), answer.roster_version)


_STRANGER = (
    "this node's certificate is of no member of the coordinator's roster; ask the operator whether this house was "
    "revoked, or whether the coordinator has not pinned its new keys"
)
_BEHIND = "key not registered; ask the operator to pin the newest roster at the coordinator"
_ODD = "key not registered; wait a minute, then call the operator"
_AWAY = "its SuperNode is not let in; wait: after a crash it takes up to a minute, then logs/supernode.log says more"


def _view(home: Home, answer: PresenceAnswer) -> SuperLinkView:
    if answer.state == "connected":
        return SuperLinkView(state="connected", since=answer.since)
    if answer.state == "unregistered":
        behind = answer.roster_version < home.roster.version
        return SuperLinkView(state="refused", why=_BEHIND if behind else _ODD)
    if answer.state == "away":
        return SuperLinkView(state="away", since=answer.since, why=_AWAY)
    return SuperLinkView()

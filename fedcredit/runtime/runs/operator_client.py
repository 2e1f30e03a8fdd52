"""An operator's side of `runtime.runs.operator_api`: one deadline a call, the coordinator's errors as its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import grpc
import msgspec

from fedcredit import errors
from fedcredit.errors import FedCreditError, IntegrityError, PolicyDenied, TransportError
from fedcredit.runtime.exchange.tls import client_credentials, client_options
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import split_address
from fedcredit.runtime.runs.operator_api import (
    SERVICE,
    Answer,
    EventsReply,
    EventsRequest,
    EventView,
    FetchPart,
    FetchRequest,
    ListReply,
    ListRequest,
    Record,
    RunRequest,
    RunView,
    SubmitRequest,
)
from fedcredit.wire.message import decode_struct, encode_struct

__all__ = ["OperatorClient"]

S = TypeVar("S", bound=msgspec.Struct)

_TRIES = 5

_CODES: Final = {
    grpc.StatusCode.PERMISSION_DENIED: (PolicyDenied, "operator.refused"),
    grpc.StatusCode.UNAUTHENTICATED: (PolicyDenied, "operator.refused"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (TransportError, "coordinator.late"),
    grpc.StatusCode.UNIMPLEMENTED: (TransportError, "coordinator.version"),
}


class OperatorClient:
    """A connection of one operator to its coordinator.

    Args:
        home: The operator's home.
        address: "host:port"; "" = the one in the roster.
    """

    def __init__(self, home: Home, address: str = "") -> None:
        self._settings = home.operator.exchange
        self._address = address or home.roster.exchange
        self._reached = False
        options = client_options(split_address(self._address)[0])
        self._channel = grpc.secure_channel(self._address, client_credentials(home.tls), options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def submit(self, spec: str, spec_digest: str) -> RunView:
        """Enters a run; see `SubmitRequest`.

        Raises:
            FedCreditError: what the coordinator says is wrong; TransportError where it does not answer.
        """
        return self._call("Submit", SubmitRequest(spec=spec, spec_digest=spec_digest), RunView)

    def runs(self, limit: int = 100) -> list[RunView]:
        """The last runs, the oldest first."""
        return self._call("List", ListRequest(limit=limit), ListReply).runs

    def get(self, run: str) -> RunView:
        """One run."""
        return self._call("Get", RunRequest(run=run), RunView)

    def events(self, run: str, after: int = 0) -> EventsReply:
        """A page of events and the run as it is now."""
        return self._call("Events", EventsRequest(run=run, after=after), EventsReply)

    def all_events(self, run: str) -> Iterator[EventView]:
        """All events of a run."""
        after, more = 0, True
        while more:
            page = self.events(run, after)
            yield from page.events
            more = page.more and bool(page.events)
            after = page.events[-1].number if page.events else after

    def stop(self, run: str, reason: str = "") -> RunView:
        """Asks a run to stop."""
        return self._call("Stop", RunRequest(run=run, reason=reason), RunView)

    def resume(self, run: str) -> RunView:
        """Puts a failed or stopped run back to work."""
        return self._call("Resume", RunRequest(run=run), RunView)

    def fetch(self, run: str) -> Record:
        """The coordinator's record of a run.

        Raises:
            IntegrityError: it changed again and again while it was read.
        """
        for _ in range(_TRIES):
            first = self._call("Fetch", FetchRequest(run=run), FetchPart)
            data = bytearray(first.data)
            while len(data) < first.size:
                part = self._call("Fetch", FetchRequest(run=run, offset=len(data)), FetchPart)
                if part.sha256 != first.sha256 or not part.data:
                    break
                data += part.data
            if hashlib.sha256(data).hexdigest() == first.sha256:
                return decode_struct(Record, bytes(data), "the coordinator's record")
        raise IntegrityError("operator.record", f"run {run}: its record changed while it was fetched; fetch it again")

    def _call(self, method: str, request: msgspec.Struct, reply: type[S]) -> S:
        if not self._reached:  # whether anybody is there is told soon, and no submission is ever sent twice
            self._send("List", ListRequest(limit=1), self._settings.connect_timeout_s)
            self._reached = True
        answer = decode_struct(
            Answer, self._send(method, request, self._settings.request_timeout_s), "an answer of the coordinator"
        )
        if answer.kind:
            raise _named(answer)
        return decode_struct(reply, answer.body, f"the coordinator's reply to {method}")

    def _send(self, method: str, request: msgspec.Struct, timeout_s: float) -> bytes:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}", _same, _same)
        try:
            return call(encode_struct(request), timeout=timeout_s, wait_for_ready=not self._reached)
        except grpc.RpcError as error:
            self._raise(error)

    def _unreachable(self) -> NoReturn:
        text = (
            f"{self._address}: no coordinator of this consortium answers; is it started, and is this the address in "
            "the roster? A certificate that it refuses looks the same: `fedcredit doctor` tells"
        )
        raise TransportError("coordinator.unreachable", text)

    def _raise(self, error: grpc.RpcError) -> NoReturn:
        call: Any = error  # an RpcError of a call is a grpc.Call too, which its type does not say
        if call.code() not in _CODES or (not self._reached and call.code() is grpc.StatusCode.DEADLINE_EXCEEDED):
            self._unreachable()
        kind, name = _CODES[call.code()]
        raise kind(name, f"{self._address}: {' '.join((call.details() or '').split())[:300]}")


def _same(data: bytes) -> bytes:
    return data


def _named(answer: Answer) -> FedCreditError:
    """The coordinator's error, as the kind it names; one that is unknown here counts as damaged evidence."""
    kind = getattr(errors, answer.kind, None) if answer.kind in (*errors.__all__,) else None
    if kind is None:
        return IntegrityError("operator.answer", f"the coordinator answered with an unknown error {answer.kind[:40]!r}")
    found: FedCreditError = kind(answer.code[:120], " ".join(answer.text.split())[:2000])
    return found

"""What operators may ask of the coordinator: submit, list, get, events, stop, resume, fetch.

Seven unary gRPC methods on the coordinator's one port, behind the same mutual TLS as the exchange. Only a certificate
whose key the roster names for a member of kind *operator* is heard; every other caller gets ``PERMISSION_DENIED`` and
its request is not looked at. Requests and answers are msgspec structs in their one canonical form, capped in size; an
error travels as its kind, code and public text.

Guarantees: who asked is known by its pinned key, and is written into the run's events. A submitted spec names every
source as ``data:NAME``, so that no house's paths or queries pass here. An operator stops, resumes and fetches its own
runs; who is admin in the roster, all. Every operator sees all runs and their events.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import grpc
import grpc.aio
import msgspec

from fedcredit.errors import FedCreditError, PeerError, PolicyDenied, SpecError
from fedcredit.runtime.daemon.logs import Log, code_of, log_failure
from fedcredit.runtime.exchange.tls import KnownKey, known_peer
from fedcredit.runtime.house.roster import MEMBER_NAME, Member, MemberKind, Roster
from fedcredit.runtime.hybrid.networks import check_hybrid, roles_of
from fedcredit.runtime.hybrid.rooms import check_rooms
from fedcredit.runtime.runs.operator_limits import LOOKS, Allowances, check_room
from fedcredit.runtime.runs.operator_roles import OPERATOR_EVENT, SUBMITTED_TEXT, check_own
from fedcredit.runtime.runs.registry import Registry, RunRecord
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.spec.travel import read_travelling
from fedcredit.types import RunId
from fedcredit.wire.message import Part, decode_struct, encode_struct

__all__ = [
    "SERVICE",
    "Answer",
    "EventView",
    "EventsReply",
    "EventsRequest",
    "FetchPart",
    "FetchRequest",
    "LineView",
    "ListReply",
    "ListRequest",
    "OperatorApi",
    "OutcomeView",
    "Record",
    "RunRequest",
    "RunView",
    "SubmitRequest",
    "TrafficView",
    "check_submission",
]

SERVICE = "fedcredit.Operator"
_MAX_SPEC = 1 << 20  # bytes; as for configuration files
_PAGE = 200  # events of one answer; with the longest texts less than the 1 MB that the server sends at once
_SLICE = 512 << 10  # bytes of a record in one answer

_Short = Annotated[str, msgspec.Meta(max_length=256)]
_Line = Annotated[str, msgspec.Meta(max_length=2048)]
_Spec = Annotated[str, msgspec.Meta(max_length=_MAX_SPEC)]
_Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class SubmitRequest(Part, frozen=True, kw_only=True):
    """A run to be done: its spec as it travels (`fedcredit.spec.travel`), and the digest that its sender means."""

    spec: _Spec
    spec_digest: _Short


class ListRequest(Part, frozen=True, kw_only=True):
    """The last runs, at most ``limit``."""

    limit: _Limit = 100


class RunRequest(Part, frozen=True, kw_only=True):
    """One run, by its name in hex or the beginning of it; ``reason`` where it is to be stopped."""

    run: _Short
    reason: _Line = ""


class EventsRequest(Part, frozen=True, kw_only=True):
    """Events of a run numbered above ``after``."""

    run: _Short
    after: _Number = 0


class RunView(Part, frozen=True, kw_only=True):
    """A run as its operators see it; see `fedcredit.runtime.runs.registry.RunRecord`."""

    run: str
    name: str
    spec_digest: str
    model: str
    data: str
    state: str
    detail: str
    created: str
    updated: str
    parties: list[str]
    flower_run: str
    continues: str


class EventView(Part, frozen=True, kw_only=True):
    """One event of a run."""

    number: int
    time: str
    party: str
    event: str
    text: str


class ListReply(Part, frozen=True, kw_only=True):
    """Runs, the oldest first."""

    runs: list[RunView]


class LineView(Part, frozen=True, kw_only=True):
    """A party's line to the exchange in a run: up or not since so many seconds, and the party it waits for, or ""."""

    party: str
    connected: bool
    seconds: float
    waiting_for: str


class TrafficView(Part, frozen=True, kw_only=True):
    """What goes on in an open run: bytes relayed since it was opened here, and its parties' lines."""

    bytes_in: int
    lines: list[LineView]


class EventsReply(Part, frozen=True, kw_only=True):
    """A page of events and the run as it is now; ``more`` = ask again after the last one."""

    run: RunView
    events: list[EventView]
    more: bool
    traffic: TrafficView | None = None


class OutcomeView(Part, frozen=True, kw_only=True):
    """What a party said at its end, byte for byte as it signed it."""

    party: str
    finished: bytes


class Record(Part, frozen=True, kw_only=True):
    """The coordinator's record of a run."""

    run: RunView
    spec: str
    outcomes: list[OutcomeView]


class FetchRequest(Part, frozen=True, kw_only=True):
    """A slice of an encoded `Record`, from a byte on."""

    run: _Short
    offset: _Number = 0


class FetchPart(Part, frozen=True, kw_only=True):
    """A slice, and size and digest of the whole, by which a change between two slices is seen."""

    data: bytes
    size: int
    sha256: str


class Answer(Part, frozen=True, kw_only=True):
    """Every answer: the encoded reply, or the kind, code and public text of an error."""

    body: bytes = b""
    kind: str = ""
    code: str = ""
    text: str = ""


@dataclass(frozen=True)
class _Method:
    request: type[msgspec.Struct]
    call: Callable[[Member, Any], msgspec.Struct]
    max_bytes: int

    def read(self, name: str, request: bytes) -> msgspec.Struct:
        if len(request) > self.max_bytes:
            raise PeerError("operator.oversize", f"{name}: {len(request)} bytes, at most {self.max_bytes} are read")
        return decode_struct(self.request, request, f"a request to {name}")


def check_submission(request: SubmitRequest, roster: Roster) -> tuple[RunSpec, str]:
    """The spec of a submitted run and the name of its records, if members of this consortium can run it.

    Raises:
        SpecError: one line: what is wrong with it.
    """
    spec, data = read_travelling(request.spec, "spec")
    if MEMBER_NAME.fullmatch(data) is None:
        raise SpecError("submit.data", f"data {data[:80]!r}: a name of records is 1 to 64 of a-z 0-9 _ -")
    for party in spec.party:
        member = roster.member(party.name)
        if member.kind is not MemberKind.NODE:
            raise SpecError("submit.party", f"party {party.name}: {member.kind} in the roster; only nodes hold records")
    if spec_digest(spec) != request.spec_digest:
        text = f"spec: digest {spec_digest(spec)[:16]}…, its sender computed {request.spec_digest[:16]}…"
        raise SpecError("submit.digest", f"{text}; operator and coordinator run different versions")
    check_hybrid(spec)
    check_rooms(roles_of(spec))
    return spec, data


class OperatorApi:
    """Answers operators.

    Args:
        registry: The book of runs.
        roster: Who is who.
        log: Every request is logged by its method and its caller.
        note: Hears of every caller that is refused: code, public text, address.
    """

    def __init__(
        self, registry: Registry, roster: Roster, log: Log, note: Callable[[str, str, str], None] | None = None
    ) -> None:
        self._note = note
        self._registry, self._log = registry, log
        self.renew(roster)
        self._methods: Mapping[str, _Method] = {
            "Submit": _Method(SubmitRequest, self._submit, _MAX_SPEC + 4096),
            "List": _Method(ListRequest, self._list, 4096),
            "Get": _Method(RunRequest, self._get, 4096),
            "Events": _Method(EventsRequest, self._events, 4096),
            "Stop": _Method(RunRequest, self._stop, 8192),
            "Resume": _Method(RunRequest, self._resume, 4096),
            "Fetch": _Method(FetchRequest, self._fetch, 4096),
        }
        self._allowances = Allowances()
        self.refused = 0
        """Calls refused because of who made them."""
        self.traffic: Callable[[RunId], TrafficView | None] = lambda _run: None
        """Looks at the exchange; asked from threads."""

    def renew(self, roster: Roster) -> None:
        """Takes a new roster: an operator that is not in it any more is refused on the next call."""
        self._roster = roster
        self._known = {one.tls_key_sha256: KnownKey(one.name, str(one.kind)) for one in roster.members.values()}

    def handler(self) -> grpc.GenericRpcHandler:
        """Handler to be added to the coordinator's server; bytes in, bytes out."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(self._served(name)) for name in self._methods
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _served(self, name: str) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]:
        async def serve(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                caller = self._operator(known_peer(context.auth_context(), self._known))
            except FedCreditError as error:
                self.refused += 1
                self._log.warning("operator.refused", code=error.code)
                if self._note is not None:
                    self._note(error.code, error.public, str(context.peer()))
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.public)
            return await asyncio.to_thread(self.answer, name, caller, request)

        return serve

    def _operator(self, key: KnownKey) -> Member:
        if key.kind != MemberKind.OPERATOR:
            raise PolicyDenied("operator.kind", f"{key.party} is a {key.kind}; only operators are answered here")
        return self._roster.member(key.party)

    def answer(self, name: str, caller: Member, request: bytes) -> bytes:
        """Answers one request of a caller that has been let in.

        Args:
            name: The method.
            caller: Who asks.
            request: Its bytes.

        Returns:
            An encoded `Answer`.
        """
        method = self._methods[name]
        try:
            self._allowances.take(caller.name, name)
            body = encode_struct(method.call(caller, method.read(name, request)))
            if name not in LOOKS:
                self._log.info(f"operator.{name.lower()}", party=caller.name)
            return encode_struct(Answer(body=body))
        except FedCreditError as error:
            self._log.warning(f"operator.{name.lower()}", party=caller.name, code=error.code)
            kind = type(error).__name__
            return encode_struct(Answer(kind=kind, code=error.code, text=" ".join(error.public.split())))
        except Exception as error:  # noqa: BLE001 -- a caller is told that it failed, and no more
            log_failure(self._log, "operator.failed", error, party=caller.name)
            text = "the coordinator failed on this request; its log says where"
            return encode_struct(Answer(kind="FedCreditError", code=code_of(error), text=text))

    def _submit(self, caller: Member, request: SubmitRequest) -> RunView:
        spec, data = check_submission(request, self._roster)
        check_room(self._registry.counts())
        run = self._registry.submit(request.spec, spec.run.name, request.spec_digest, spec.run.model, data)
        self._registry.event(run, caller.name, OPERATOR_EVENT, SUBMITTED_TEXT)
        return self._view(run)

    def _list(self, _: Member, request: ListRequest) -> ListReply:
        return ListReply(runs=[_run_view(one) for one in self._registry.latest(request.limit)])

    def _get(self, _: Member, request: RunRequest) -> RunView:
        return self._view(self._registry.find(request.run))

    def _events(self, _: Member, request: EventsRequest) -> EventsReply:
        run = self._registry.find(request.run)
        view = self._view(run)  # read first: a state that is seen has its event in this page or a later one
        found = self._registry.events(run, request.after, _PAGE + 1)
        views = [EventView(number=o.number, time=o.time, party=o.party, event=o.event, text=o.text) for o in found]
        return EventsReply(run=view, events=views[:_PAGE], more=len(found) > _PAGE, traffic=self.traffic(run))

    def _stop(self, caller: Member, request: RunRequest) -> RunView:
        run = self._registry.find(request.run)
        check_own(self._registry, run, caller, "stop")
        reason = f"stopped by {caller.name}" + (f": {request.reason}" if request.reason else "")
        self._registry.stop(run, reason)
        return self._view(run)

    def _resume(self, caller: Member, request: RunRequest) -> RunView:
        run = self._registry.find(request.run)
        check_own(self._registry, run, caller, "resume")
        self._registry.resume(run)
        self._registry.event(run, caller.name, "operator", "resumed it")
        return self._view(run)

    def _fetch(self, caller: Member, request: FetchRequest) -> FetchPart:
        run = self._registry.find(request.run)
        check_own(self._registry, run, caller, "fetch")
        outcomes = [OutcomeView(party=one, finished=data) for one, data in self._registry.outcomes(run).items()]
        record = Record(run=self._view(run), spec=self._registry.get(run).spec_json, outcomes=outcomes)
        data = encode_struct(record)
        part = data[request.offset : request.offset + _SLICE]
        return FetchPart(data=part, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _view(self, run: RunId) -> RunView:
        return _run_view(self._registry.get(run))


def _run_view(record: RunRecord) -> RunView:
    return RunView(
        run=record.run,
        name=record.name,
        spec_digest=record.spec_digest,
        model=record.model,
        data=record.data,
        state=str(record.state),
        detail=record.detail,
        created=record.created,
        updated=record.updated,
        parties=list(record.parties),
        flower_run=record.flower_run,
        continues=record.continues,
    )

"""Which messages a protocol has: who may send them to whom, how large they may be, which of them cost disclosure."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.types import Role
from fedcredit.wire.message import Message, kind_of

__all__ = ["Declared", "ProtocolSchema", "RunSchema", "leaf_fields", "merge"]

_SCALARS = (bytes, str, int, float, bool)


@dataclass(frozen=True)
class Declared:
    """One message type of a protocol.

    Args:
        message: The struct.
        senders: Roles that may send it.
        receivers: Roles that may receive it.
        max_bytes: Largest encoded message, in bytes.
        spends: It discloses something about rows: it must carry a Spend, and is never broadcast.
    """

    message: type[Message]
    senders: frozenset[Role]
    receivers: frozenset[Role]
    max_bytes: int
    spends: bool = False

    @property
    def kind(self) -> str:
        """Name on the wire."""
        return kind_of(self.message)

    def allows(self, sender: Role, receiver: Role) -> None:
        """Refuses a pair of roles that this message does not run between.

        Raises:
            PolicyDenied: naming the kind and both roles.
        """
        if sender not in self.senders or receiver not in self.receivers:
            raise PolicyDenied("schema.roles", f"{self.kind} is not declared from {sender} to {receiver}")

    def fits(self, size: int) -> None:
        """Refuses a body over the declared size.

        Raises:
            PolicyDenied: naming both sizes.
        """
        if size > self.max_bytes:
            raise PolicyDenied(
                "schema.oversize", f"{self.kind} has {size} bytes, at most {self.max_bytes} are declared"
            )


@dataclass(frozen=True)
class ProtocolSchema:
    """All messages of one protocol; field types are checked when it is built.

    Args:
        name: Name of the protocol, for example ``"bin"``.
        messages: Its message types.
    """

    name: str
    messages: tuple[Declared, ...]

    def __post_init__(self) -> None:
        """Refuses duplicate kinds, empty roles, unbounded sizes and field types that have no canonical form.

        Raises:
            SpecError: naming protocol, kind and field.
        """
        kinds: set[str] = set()
        for declared in self.messages:
            where = f"protocol {self.name}: {declared.kind}"
            if declared.kind in kinds:
                raise SpecError("schema.duplicate", f"{where} is declared twice")
            kinds.add(declared.kind)
            if not (declared.senders and declared.receivers and declared.max_bytes > 0):
                raise SpecError("schema.incomplete", f"{where} lacks senders, receivers or a size")
            if declared.message.__struct_config__.tag_field != "kind" or "." not in declared.kind:
                raise SpecError("schema.kind", f"{where} needs a tag such as 'protocol.message'")
            tuple(leaf_fields(declared.message))

    def by_kind(self, kind: str) -> Declared:
        """Declaration of a kind.

        Raises:
            PolicyDenied: this protocol has no such message.
        """
        for declared in self.messages:
            if declared.kind == kind:
                return declared
        raise PolicyDenied("schema.undeclared", f"message {kind} is not declared for protocol {self.name}")

    def allows(self, kind: str, sender: Role, receiver: Role, size: int) -> Declared:
        """Declaration of a kind that may go from one role to another at this size.

        Raises:
            PolicyDenied: undeclared, wrong roles or too large.
        """
        declared = self.by_kind(kind)
        declared.allows(sender, receiver)
        declared.fits(size)
        return declared


@dataclass(frozen=True)
class RunSchema:
    """The schemas of all protocols of one run; a kind belongs to exactly one of them."""

    protocols: tuple[ProtocolSchema, ...]

    def __post_init__(self) -> None:
        """Refuses two protocols that share a name or a kind.

        Raises:
            SpecError: naming the protocol and kind.
        """
        owners: dict[str, str] = {}
        names: set[str] = set()
        for protocol in self.protocols:
            if protocol.name in names:
                raise SpecError("schema.duplicate", f"protocol {protocol.name} is listed twice with different messages")
            names.add(protocol.name)
            for declared in protocol.messages:
                if declared.kind in owners:
                    other = owners[declared.kind]
                    raise SpecError("schema.duplicate", f"{declared.kind} is in protocols {other} and {protocol.name}")
                owners[declared.kind] = protocol.name

    @property
    def largest(self) -> int:
        """Largest body any message may have, in bytes."""
        return max((d.max_bytes for p in self.protocols for d in p.messages), default=0)

    def index(self) -> Mapping[str, tuple[ProtocolSchema, Declared]]:
        """Protocol and declaration of every kind."""
        return {d.kind: (p, d) for p in self.protocols for d in p.messages}

    def by_kind(self, kind: str) -> tuple[ProtocolSchema, Declared]:
        """Protocol and declaration of a kind.

        Raises:
            PolicyDenied: no protocol of this run has such a message.
        """
        found = self.index().get(kind)
        if found is None:
            names = ", ".join(p.name for p in self.protocols) or "none"
            raise PolicyDenied(
                "schema.undeclared", f"message {kind} is not declared for this run's protocols ({names})"
            )
        return found


def merge(*protocols: ProtocolSchema) -> RunSchema:
    """Schemas of several protocols as one; the same schema given twice counts once.

    Raises:
        SpecError: two different protocols share a name or a kind.
    """
    unique: list[ProtocolSchema] = []
    for protocol in protocols:
        if protocol not in unique:
            unique.append(protocol)
    return RunSchema(tuple(unique))


def leaf_fields(cls: type[msgspec.Struct], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Names of all fields that hold a value, nested ones as ``outer.inner``.

    Raises:
        SpecError: a field has a type that messages may not have.
    """
    if depth > 4:  # nesting deeper than any protocol needs would only serve recursion attacks
        raise SpecError("schema.depth", f"{cls.__name__} nests structs too deeply")
    if not cls.__struct_config__.frozen or not cls.__struct_config__.forbid_unknown_fields:
        raise SpecError("schema.struct", f"{cls.__name__} must derive from Message or Part and stay frozen and closed")
    hints = typing.get_type_hints(cls)
    for field in msgspec.structs.fields(cls):
        name = prefix + field.encode_name
        inner = _element(hints[field.name], f"{cls.__name__}.{field.name}")
        if inner is None:
            yield name
        else:
            yield from leaf_fields(inner, name + ".", depth + 1)


def _element(hint: object, where: str) -> type[msgspec.Struct] | None:
    """The struct inside lists, or None for a scalar."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is list:
        return _element(arguments[0], where)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _element(arguments[0], where)
    if hint in _SCALARS or (origin is typing.Literal and all(isinstance(a, (str, int)) for a in arguments)):
        return None
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    raise SpecError("schema.field-type", f"{where} has type {hint}, messages hold bytes, str, int, float, bool, lists")

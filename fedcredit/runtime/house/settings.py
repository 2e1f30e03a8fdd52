"""The settings of a member's home: ``node.toml``, ``coordinator.toml``, ``operator.toml``. Unknown keys are refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from fedcredit.errors import SpecError
from fedcredit.runtime.house.roster import MEMBER_NAME, MemberKind, split_address
from fedcredit.spec.explain import unknown_key
from fedcredit.types import PartyId, Role

__all__ = [
    "SETTINGS_FILES",
    "Address",
    "CoordinatorExchange",
    "CoordinatorFlower",
    "CoordinatorSettings",
    "DataSource",
    "HolderRole",
    "MemberName",
    "MetricsSection",
    "NodeExchange",
    "NodeFlower",
    "NodeRun",
    "NodeSettings",
    "OperatorExchange",
    "OperatorSettings",
    "SettingsSection",
    "read_settings",
    "validate_settings",
]

SETTINGS_FILES: Final[Mapping[MemberKind, str]] = {
    MemberKind.NODE: "node.toml",
    MemberKind.COORDINATOR: "coordinator.toml",
    MemberKind.OPERATOR: "operator.toml",
}
"""Name of the settings file by kind of member."""

_MAX_BYTES = 1 << 20
_WANTED: Final[Mapping[str, str]] = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list such as []",
    "tuple_type": "a list such as []",
    "mapping_type": "a table of keys",
    "dict_type": "a table of keys",
    "model_type": "a table of keys",
    "string_too_short": "a text that is not empty",
}
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("gt", "a number above"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number below"),
    "less_than_equal": ("le", "a number of at most"),
}


def _wrong(right: str) -> PydanticCustomError:
    return PydanticCustomError("fedcredit", "{right}", {"right": right})


def _address(value: str) -> str:
    try:
        split_address(value)
    except SpecError:
        raise _wrong('"host:port" with a port from 1 to 65535') from None
    return value


def _name(value: str) -> str:
    if MEMBER_NAME.fullmatch(value) is None:
        raise _wrong("1 to 64 of the characters a-z 0-9 _ - that start with a letter or digit")
    return value


def _holder(value: object) -> object:
    roles = {role.value: role for role in (Role.LABEL_HOLDER, Role.FEATURE_HOLDER)}
    if isinstance(value, str) and value in roles:
        return roles[value]
    raise _wrong(f"one of {', '.join(map(json.dumps, roles))}")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Address = Annotated[str, AfterValidator(_address)]
"""``host:port``."""
HolderRole = Annotated[Role, BeforeValidator(_holder)]
"""Label holder or feature holder."""
MemberName = Annotated[PartyId, AfterValidator(_name)]
"""Name of a member."""
_Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=2**40)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Texts = Annotated[tuple[_Text, ...], BeforeValidator(_tuple)]


class SettingsSection(BaseModel):
    """Base of all sections: strict types, frozen, unknown keys refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class DataSource(SettingsSection):
    """``[data.NAME]``: records of this house; a run names them by NAME and never learns the rest.

    Attributes:
        source: Path (relative to the home), ``known:NAME`` or SQLAlchemy URL; ``${VARIABLES}`` are expanded when read.
        query: SQL text, with a URL only.
        test_ids: File of the held-out ids of this house, one a line.
        catalog: File that describes raw tables and the features derived from them; ``source`` is then their place.
        registry: File of public ids, for alignment by a register and for decoys.
    """

    source: _Text
    query: _Text | None = None
    test_ids: _Text | None = None
    catalog: _Text | None = None
    registry: _Text | None = None


class MetricsSection(SettingsSection):
    """``[metrics]``: health and Prometheus metrics.

    Attributes:
        listen: Address it listens on; the loopback one unless a proxy stands before it.
    """

    listen: Address = "127.0.0.1:9464"


class NodeExchange(SettingsSection):
    """``[exchange]`` of a node.

    Attributes:
        connect_timeout_s: Longest wait for a connection.
        reconnect_s: Longest outage that is bridged before the run fails.
    """

    connect_timeout_s: _Seconds = 10.0
    reconnect_s: _Seconds = 120.0


class NodeFlower(SettingsSection):
    """``[flower]`` of a node.

    Attributes:
        host: Where the SuperNode's own interface listens; only its child processes use it.
        port: Its port.
        bundles: Digests of app bundles that may start here besides the one of the installed package.
    """

    host: _Text = "127.0.0.1"
    port: _Port = 9094
    bundles: _Texts = ()


class NodeRun(SettingsSection):
    """``[run]`` of a node.

    Attributes:
        busy_timeout_s: Longest silence of a peer that computes.
    """

    busy_timeout_s: _Seconds = 3600.0


class NodeSettings(SettingsSection):
    """``node.toml``.

    Attributes:
        party: The member's name.
        role: Role this house takes; None = either. Only checked against a proposal.
        exchange: Timing of the line to the exchange.
        flower: SuperNode.
        metrics: Health and metrics.
        run: Timing of runs.
        data: Records by the name that runs use.
    """

    party: MemberName
    role: HolderRole | None = None
    exchange: NodeExchange = NodeExchange()
    flower: NodeFlower = NodeFlower()
    metrics: MetricsSection = MetricsSection()
    run: NodeRun = NodeRun()
    data: Mapping[MemberName, DataSource] = Field(default_factory=dict)


class CoordinatorExchange(SettingsSection):
    """``[exchange]`` of the coordinator; the limits hold whatever a peer does.

    Attributes:
        listen: Address it listens on; on loopback where the proxy stands before it, as it does with one public address.
        max_streams: Most streams at once.
        max_run_bytes: Most bytes stored for one run.
        max_stored_bytes: Most bytes stored for all runs.
        frames_per_s: Most frames a second and stream.
        handshake_timeout_s: Longest time until a connection says who it is.
    """

    listen: Address = "127.0.0.1:9442"
    max_streams: _Count = 256
    max_run_bytes: _Count = 512 << 20
    max_stored_bytes: _Count = 2 << 30
    frames_per_s: _Count = 20_000
    handshake_timeout_s: _Seconds = 10.0


class CoordinatorFlower(SettingsSection):
    """``[flower]`` of the coordinator.

    Attributes:
        host: Where the SuperLink listens; behind the proxy.
        port: Its port.
        proxy: Address of the proxy: with one public address that of everything, with two that of the fleet interface
            alone; "" = a proxy of the operator's own.
        approval_timeout_s: Longest wait for a house's approval of a run.
    """

    host: _Text = "127.0.0.1"
    port: _Port = 9093
    proxy: Annotated[str, AfterValidator(lambda text: _address(text) if text else text)] = "0.0.0.0:9443"
    approval_timeout_s: Annotated[float, Field(gt=0, le=90 * 86400, allow_inf_nan=False)] = 7 * 86400.0


class CoordinatorSettings(SettingsSection):
    """``coordinator.toml``.

    Attributes:
        party: Always ``coordinator``.
        exchange: Exchange and operators' interface.
        flower: SuperLink and its proxy.
        metrics: Health and metrics.
    """

    party: MemberName
    exchange: CoordinatorExchange = CoordinatorExchange()
    flower: CoordinatorFlower = CoordinatorFlower()
    metrics: MetricsSection = MetricsSection()


class OperatorExchange(SettingsSection):
    """``[exchange]`` of an operator.

    Attributes:
        connect_timeout_s: Longest wait for a connection.
        request_timeout_s: Longest wait for an answer.
    """

    connect_timeout_s: _Seconds = 10.0
    request_timeout_s: _Seconds = 60.0


class OperatorSettings(SettingsSection):
    """``operator.toml``.

    Attributes:
        party: The member's name.
        exchange: Timing of requests.
    """

    party: MemberName
    exchange: OperatorExchange = OperatorExchange()


M = TypeVar("M", bound=BaseModel)


def read_settings(model: type[M], path: Path) -> M:
    """Reads a TOML file as settings.

    Raises:
        SpecError: one line that says file, key, what was found and what would be right.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError("settings.file", f"{path}: larger than 1 MiB; this is no settings file")
        raw = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SpecError("settings.file", f"{path}: cannot be read ({error.strerror}); put the file there") from None
    except UnicodeDecodeError:
        raise SpecError("settings.file", f"{path}: not UTF-8 text; write TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError("settings.toml", f"{path}: not valid TOML: {error}") from None
    return validate_settings(model, raw, str(path))


def validate_settings(model: type[M], raw: Mapping[str, Any], file: str) -> M:
    """As ``read_settings``, from a mapping.

    Raises:
        SpecError: as in ``read_settings``.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        # pydantic's own text repeats inputs, which may be a URL with its password
        faults = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    code = {"extra_forbidden": "settings.unknown-key", "missing": "settings.missing-key"}
    raise SpecError(code.get(faults[0]["type"], "settings.value"), f"{file}: {_line(faults[0], model)}{more}")


def _line(fault: ErrorDetails, model: type[BaseModel]) -> str:
    location, context, kind = fault["loc"], fault.get("ctx", {}), fault["type"]
    path = str(context.get("key") or ".".join(str(p + 1 if isinstance(p, int) else p) for p in location) or "the file")
    if kind == "extra_forbidden":
        return unknown_key(path, str(location[-1]), _keys_at(location, model))
    if kind == "missing":
        return f"{path}: missing; add it"
    if kind == "fedcredit":
        return (
            f"{path}: {context['right']}"
            if "key" in context
            else f"{path}: found {_found(fault)}; use {context['right']}"
        )
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{path}: found {_found(fault)}; use {words} {context[key]:g}"
    if kind in ("literal_error", "enum"):
        wanted = str(context["expected"]).replace(" or ", ", ").replace("'", '"')
        return f"{path}: found {_found(fault)}; use one of {wanted}"
    return f"{path}: found {_found(fault)}; use {_WANTED.get(kind, fault['msg'])}"


def _found(fault: ErrorDetails) -> str:
    """What stands there: a short scalar as written, else its kind alone; nothing of a source or query."""
    value = fault["input"]
    if isinstance(value, (bool, int, float)) or (
        isinstance(value, str) and not {"source", "query"} & set(fault["loc"])
    ):
        text = json.dumps(value)
        return text if len(text) <= 60 else text[:57] + '…"'
    return "a table" if isinstance(value, Mapping) else f"a {'list' if isinstance(value, (list, tuple)) else 'value'}"


def _keys_at(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Names of the keys that stand beside the one at ``location``."""
    here: type[BaseModel] | None = model
    for part in location[:-1]:
        if here is None or isinstance(part, int) or part not in here.model_fields:
            continue  # an index of a list or a name in a table: the model is already that of its entries
        here = _model_in(here.model_fields[part].annotation)
    return [] if here is None else list(here.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model in an annotation, wherever it is nested."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)

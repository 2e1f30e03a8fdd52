"""The bundle of one member: what it gets from the operator. Nothing in it is secret, and no private key is in it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined

import fedcredit
from fedcredit.errors import SpecError
from fedcredit.runtime.house.roster import Member, MemberKind, Roster, split_address
from fedcredit.runtime.house.settings import SETTINGS_FILES
from fedcredit.runtime.provision.authority import Authority
from fedcredit.runtime.provision.certificates import load_certificate
from fedcredit.runtime.provision.keys import fingerprint
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.types import COORDINATOR, PartyId

__all__ = ["PROTOCOLS", "LocalPlan", "remove_bundle", "write_bundle"]

PROTOCOLS = ("align", "bin", "boost", "fedavg", "group_sum", "run", "scorecard", "secure_sum", "select")
"""Names of all protocols, as policies name them."""

_EXCHANGE_PORT = 9442
_FILES = ("roster.json", "ca.pem", "certificate.pem", "policy.toml", "compose.yaml", "CHECKLIST.md")


@dataclass(frozen=True)
class LocalPlan:
    """Loopback ports of a trial in which all members share one machine.

    Args:
        metrics: Port of health and metrics by member.
        flower: Port of the member's Flower process.
        exchange: Port of the exchange behind the proxy, where both share an address.
    """

    metrics: Mapping[PartyId, int]
    flower: Mapping[PartyId, int]
    exchange: int

    @classmethod
    def of(cls, consortium: ConsortiumSpec) -> LocalPlan:
        """Two consecutive ports a member, from ``local.first_port``, and one more for the exchange.

        Raises:
            SpecError: they run into the ports of the coordinator's addresses.
        """
        first, names = consortium.local.first_port, list(consortium.kinds)
        used = {split_address(text)[1] for text in (consortium.coordinator.exchange, consortium.coordinator.fleet)}
        last = first + 2 * len(names)
        if any(first <= port <= last for port in used) or last > 65535:
            right = "move local.first_port or the coordinator's addresses"
            raise SpecError("provision.ports", f"the local ports {first} to {last} collide with others; {right}")
        return cls(
            metrics={name: first + 2 * place for place, name in enumerate(names)},
            flower={name: first + 2 * place + 1 for place, name in enumerate(names)},
            exchange=last,
        )


def write_bundle(
    folder: Path, consortium: ConsortiumSpec, authority: Authority, member: Member, plan: LocalPlan | None
) -> Path:
    """Writes the bundle of one member; files with the same content stay as they are.

    Args:
        folder: Where to.
        consortium: Who takes part.
        authority: With the roster and certificates in force.
        member: Whose bundle it is.
        plan: Ports of a local trial, which also gets a policy for it (``local.mode``); None = for elsewhere.

    Raises:
        SpecError: the folder cannot be written.
    """
    issued, roster = authority.issued[member.name], authority.roster
    if roster is None:
        raise SpecError("provision.roster", "there is no roster yet")
    values = _values(consortium, authority, roster, member, plan)
    policy = "policy_local.toml.j2" if plan else "policy.toml.j2"
    files = {
        "roster.json": authority.signed,
        "ca.pem": authority.ca,
        "certificate.pem": issued.certificate.encode("ascii"),
        SETTINGS_FILES[member.kind]: _render(f"{member.kind}.toml.j2", values),
        "compose.yaml": _render("compose.yaml.j2", values),
        "CHECKLIST.md": _render("CHECKLIST.md.j2", values),
    }
    if member.kind is MemberKind.NODE:
        files["policy.toml"] = _render(policy, values)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in files.items():
            path = folder / name
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    except OSError as error:
        raise SpecError("provision.out", f"{folder}: cannot be written ({error.strerror})") from None
    return folder


def remove_bundle(folder: Path) -> None:
    """Removes the bundle of a member that was revoked, so that nobody sends it; other files stay."""
    for name in (*_FILES, *SETTINGS_FILES.values()):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _values(
    consortium: ConsortiumSpec, authority: Authority, roster: Roster, member: Member, plan: LocalPlan | None
) -> dict[str, Any]:
    section = consortium.section(member.name)
    certificate = load_certificate(authority.issued[member.name].certificate.encode("ascii"), "certificate.pem")
    exchange, fleet = (split_address(text) for text in (roster.exchange, roster.fleet))
    return {
        "version": fedcredit.__version__,
        "consortium": consortium.name,
        "member": member,
        "kind": str(member.kind),
        "role": str(section.role) if section and section.role else "",
        "data": dict(section.data) if section and plan else {},
        "roster": roster,
        "local": plan is not None,
        "production": consortium.local.mode == "production",
        "metrics_port": plan.metrics[member.name] if plan else 9464,
        "flower_port": plan.flower[member.name] if plan else 9093 if member.kind is MemberKind.COORDINATOR else 9094,
        "exchange_listen": _exchange_listen(roster, plan),
        "proxy_listen": roster.fleet if plan else f"0.0.0.0:{fleet[1]}",
        "exchange_port": exchange[1],
        "fleet_port": fleet[1],
        "one_address": roster.one_address,
        "others": [name for name in roster.members if name != member.name],
        "counterparties": [
            name
            for name, other in roster.members.items()
            if name != member.name and other.kind is not MemberKind.OPERATOR
        ],
        "protocols": PROTOCOLS,
        "valid_until": certificate.not_valid_after_utc,
        "consortium_fingerprint": fingerprint(authority.signing.public.raw),
        "fingerprints": {name: fingerprint(one.identity.raw) for name, one in roster.members.items()},
        "coordinator": COORDINATOR,
    }


def _exchange_listen(roster: Roster, plan: LocalPlan | None) -> str:
    """With one address the proxy is at it, and the exchange behind it, where nobody else comes."""
    if roster.one_address:
        return f"127.0.0.1:{plan.exchange if plan else _behind(split_address(roster.exchange)[1])}"
    return roster.exchange if plan else f"0.0.0.0:{split_address(roster.exchange)[1]}"


def _behind(port: int) -> int:
    """A port of the exchange that is not the proxy's, which listens everywhere."""
    return _EXCHANGE_PORT if port != _EXCHANGE_PORT else _EXCHANGE_PORT - 1


@functools.cache
def _templates() -> Environment:
    environment = Environment(  # noqa: S701 -- no HTML: TOML, YAML and Markdown, with values quoted by the filter
        loader=PackageLoader("fedcredit.runtime.provision", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["toml"] = _toml
    return environment


def _render(template: str, values: Mapping[str, Any]) -> bytes:
    text = _templates().get_template(template).render(values)
    if template.endswith(".toml.j2"):
        tomllib.loads(text)
    return text.encode("utf-8")


def _toml(value: object) -> str:
    """A value in TOML's syntax."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()

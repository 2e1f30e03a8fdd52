"""A small consortium whose members' bundles can be provisioned and pinned again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.consortium import Order, provision
from fedcredit.runtime.provision.pin import pin
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import ConsortiumSpec

KINDS = {
    "coordinator": MemberKind.COORDINATOR,
    "bank": MemberKind.NODE,
    "utility": MemberKind.NODE,
    "ops": MemberKind.OPERATOR,
}


@dataclass
class Town:
    """Homes of all members; whoever is in `KINDS`."""

    folder: Path
    address: str = "127.0.0.1:9443"
    fingerprint: str = ""
    gone: set[str] = field(default_factory=set)

    def spec(self, **operators: Any) -> ConsortiumSpec:
        members: list[dict[str, Any]] = [
            {"name": name, "kind": str(kind), **operators.get(name, {})}
            for name, kind in KINDS.items()
            if kind is not MemberKind.COORDINATOR and name not in self.gone
        ]
        return ConsortiumSpec.model_validate(
            {"name": "north", "coordinator": {"address": self.address}, "member": members}
        )

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def opened(self, name: str) -> Home:
        return open_home(self.home(name))

    def begin(self, **operators: Any) -> Town:
        """Requests, bundles, pins."""
        requests = [make_request(name, kind, self.home(name)).path for name, kind in KINDS.items()]
        self.provision(requests, **operators)
        self.pin(*KINDS)
        return self

    def provision(
        self, requests: Sequence[Path] = (), *, revoke: Sequence[str] = (), renew: bool = False, **operators: Any
    ) -> None:
        self.gone |= set(revoke)
        done = provision(self.spec(**operators), self.folder / "out", Order(requests, revoke, renew))
        self.fingerprint = done.fingerprint

    def pin(self, *names: str) -> None:
        for name in names:
            pin(self.folder / "out" / name, self.home(name), self.fingerprint)

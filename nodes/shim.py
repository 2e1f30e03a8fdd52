"""Stands in for Flower's task commands at a node: runs the installed app for a listed bundle, refuses all else.

The node's folder of commands, first in the SuperNode's PATH, starts this module under the name of each command that a
SuperNode can start. ``flwr-clientapp`` compares the digest of the bundle that came with the run with the one that this
house's own package makes. A listed bundle is not unpacked either: the app that runs is the installed one. Any other
bundle is answered with an error that names it, and any other command ends at once; both are written down.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.supernode.cli import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

import fedcredit
from fedcredit.errors import IntegrityError
from fedcredit.runtime.daemon.leash import end_with
from fedcredit.runtime.flower_bundle import bundle_sha256
from fedcredit.runtime.flower_client import HOME_VARIABLE, SUPERVISOR_VARIABLE
from nodes.app import app

__all__ = ["AUDIT_FILE", "Guard", "main"]

AUDIT_FILE = "flower-audit.jsonl"
"""File in the node's folder of logs that tells what was refused."""

_REPLACED = ("install_from_fab", "get_load_client_app_fn")  # of Flower's own module, looked at in its tests
_SHOWN = 16  # hex digits of a digest in texts


@dataclass(frozen=True)
class Guard:
    """Decides which bundles may start here.

    Args:
        home: The member's folder.
        listed: Digests in hex.
    """

    home: Path
    listed: frozenset[str]

    @classmethod
    def of_home(cls, home: Path) -> Guard:
        """The installed package's own bundle, and what ``[flower] bundles`` of ``node.toml`` lists."""
        try:
            more = tomllib.loads((home / "node.toml").read_text("utf-8")).get("flower", {}).get("bundles", [])
        except (OSError, ValueError, AttributeError):
            more = []  # the worker will say what is wrong with the settings; nothing is listed by mistake
        return cls(home, frozenset({bundle_sha256(), *map(str, more)}))

    def check(self, bundle: bytes | Path, *_: object, **__: object) -> Path:
        """Takes the place of the unpacking of a bundle.

        Raises:
            IntegrityError: the bundle is not listed, or this house's own installation is of two versions.
        """
        content = bundle if isinstance(bundle, bytes) else bundle.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if version("fedcredit") != fedcredit.__version__:
            text = f"installed fedcredit {version('fedcredit')}, but its code says {fedcredit.__version__}"
            raise self.refused("bundle.version", text, found)
        if found not in self.listed:
            own = ", ".join(sorted(one[:_SHOWN] for one in self.listed))
            text = f"app bundle {found[:_SHOWN]} is not listed here (fedcredit {fedcredit.__version__}: {own})"
            raise self.refused("bundle.unlisted", text, found)
        return self.home

    def refused(self, code: str, text: str, found: str) -> IntegrityError:
        """Writes a refusal down, and returns it to be raised."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": code, "text": text, "found": found}
        logs = self.home / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        with (logs / AUDIT_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return IntegrityError(code, text)


def _installed_app(*_: object, **__: object) -> Callable[..., ClientApp]:
    """Takes the place of the loading of an app from an unpacked bundle."""
    return lambda *_names: app


def main(environment: Mapping[str, str] = os.environ) -> None:
    """The command."""
    guard = Guard.of_home(Path(environment[HOME_VARIABLE]))
    supervisor = environment.get(SUPERVISOR_VARIABLE, "")
    if supervisor.isdecimal():
        end_with(int(supervisor))
    command = Path(sys.argv[0]).name
    if command != "flwr-clientapp":
        refused = guard.refused("task.refused", f"a task of kind {command} was sent; nodes run flwr-clientapp only", "")
        sys.exit(str(refused))
    for name, ours in zip(_REPLACED, (guard.check, _installed_app), strict=True):
        if not callable(getattr(run_clientapp, name, None)):
            sys.exit(str(guard.refused("bundle.unguarded", f"this version of Flower has no {name}", "")))
        setattr(run_clientapp, name, ours)
    flwr_clientapp()

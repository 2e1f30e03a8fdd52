"""One house of a star: its process, and what it needs to reach from a folder and a user of its own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcredit.kernels.loop_store import loop_store

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


class HouseProcess:
    """A process in a house; see ``house_process.py``.

    Args:
        command: What to start.
        log: Its standard error.
        environment: Its whole environment.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environment),
                cwd="/",
            )
        self.pid = 0

    def hello(self) -> None:
        """Waits until it is there."""
        self.pid = int(self.answer()["pid"])

    def tell(self, do: str, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.log.name}: {self.log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RuntimeError(f"{self.log.name}: {found['error']}")
        return found

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        self.tell(do, **order)
        return self.answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def copy_compiled(target: Path) -> None:
    """Copies this machine's compiled loops to a house: its user cannot read those of another.

    What is not compiled yet each house compiles for itself.
    """
    kept = loop_store(os.environ)
    shutil.copytree(kept, target / kept.name, copy_function=shutil.copyfile)
    target.chmod(0o700)
    (target / kept.name).chmod(0o700)


def mounts() -> str:
    """Shell commands that make the interpreter and the project reachable where they lie in a private folder.

    ``ip netns exec`` gives every process mounts of its own, so nobody else sees this.
    """
    wanted = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    if "FEDCREDIT_DATA" in os.environ:
        wanted.append(Path(os.environ["FEDCREDIT_DATA"]))
    hidden: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(one.resolve() for one in wanted):
        for above in reversed(path.parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                hidden.setdefault(above, []).append(path)
                break
    lines = []
    for above, inside in hidden.items():
        lines += ["t=$(mktemp -d)", "mount -t tmpfs -o mode=0755 tmpfs $t"]
        lines += [f"mkdir $t/{n}; mount --bind '{path}' $t/{n}" for n, path in enumerate(inside)]
        lines.append(f"mount -t tmpfs -o mode=0711 tmpfs '{above}'")
        lines += [f"mkdir -p '{path}'; mount --move $t/{n} '{path}'" for n, path in enumerate(inside)]
        lines += ["umount $t", "rmdir $t"]
    return "".join(f"{line}\n" for line in lines)

"""First step of a member's pod: lays the home out of its secret, with the modes that the member insists on.

A secret's files are links that the pod's group can read, and a home whose keys others can read is refused. So the keys
are copied, for their owner alone, into memory that ends with the pod, and everything else onto the member's volume,
where its state is. A secret that is older than what this home has pinned already is refused.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

__all__ = ["lay", "main"]

_KEYS = ("identity.key", "sealing.key", "tls.key")
_NODE_KEYS = ("flower.key", "flower.pub")
_FILES = ("roster.json", "pins.json", "ca.pem", "certificate.pem")
_SETTINGS = {"node.toml": (*_NODE_KEYS, "policy.toml"), "coordinator.toml": ()}


def lay(secret: Path, home: Path, keys: Path) -> None:
    """Lays a home.

    Args:
        secret: Folder with all files of the home and of its keys folder.
        home: Folder on the member's volume.
        keys: Folder in memory.

    Raises:
        ValueError: one line: what the secret lacks, or that it is out of date.
        OSError: a folder cannot be written.
    """
    settings = [name for name in _SETTINGS if (secret / name).is_file()]
    if len(settings) != 1:
        raise ValueError(f"{secret}: needs one of {' and '.join(_SETTINGS)}, has {len(settings)}")
    wanted = (*_KEYS, *_FILES, settings[0], *_SETTINGS[settings[0]])
    missing = [name for name in wanted if not (secret / name).is_file()]
    if missing:
        raise ValueError(f"{secret}: lacks {', '.join(missing)}; make the secret from the pinned home and its keys")
    _check_newer(secret / "pins.json", home / "pins.json")
    link = home / "keys"
    if link.exists() and not link.is_symlink():
        raise ValueError(f"{link}: is a folder; keys on the volume are not wanted here, move them into the secret")
    for folder in (home, keys):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    for name in wanted:
        _copy(secret / name, (keys if name in (*_KEYS, *_NODE_KEYS) else home) / name)
    link.unlink(missing_ok=True)
    link.symlink_to(keys)


def _check_newer(given: Path, pinned: Path) -> None:
    """A volume that has seen a later roster is never led back to an earlier one."""
    if not pinned.is_file():
        return
    new, old = (int(json.loads(path.read_text("utf-8"))["roster_version"]) for path in (given, pinned))
    if new < old:
        raise ValueError(f"{given}: roster version {new}, but version {old} was pinned here; update the secret")


def _copy(source: Path, target: Path) -> None:
    """Puts a whole file in place at once, readable by its owner alone."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def main(arguments: list[str]) -> None:
    """The command: ``lay_home.py SECRET HOME KEYS``.

    Raises:
        SystemExit: with the reason, where there is one.
    """
    secret, home, keys = map(Path, arguments)
    try:
        lay(secret, home, keys)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main(sys.argv[1:])

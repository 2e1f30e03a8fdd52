"""What a party cannot draw again, one file each, on the disk before it is used and gone when the run has ended.

A file is there whole or not at all, readable by its owner only, and says in itself which run and party it belongs to,
what it is, and what it was made from. All are held against their digests when the folder is opened, before a role
sends anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedcredit.errors import IntegrityError
from fedcredit.runtime.checkpoints import replace_file

__all__ = ["KeptFiles"]

_MAGIC = b"fedcredit/kept/1"
_DIGEST_BYTES, _LENGTH_BYTES = 32, 4
_NAME_DIGITS = 32


class _Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file says of its content."""

    owner: str
    name: str
    about: bytes


@dataclass(frozen=True)
class _Found:
    """A file that is there."""

    path: Path
    about: bytes


class KeptFiles:
    """One party's folder of one run; see `fedcredit.protocol.checkpoint.Kept`.

    Args:
        folder: Made with mode 0700 when the first file is written.
        owner: Names the run and the party.
        durable: Force each file to the disk before it counts; production.

    Raises:
        IntegrityError: a file is damaged, or belongs to another run or party.
    """

    def __init__(self, folder: Path, owner: str, *, durable: bool = True) -> None:
        self._folder, self._owner, self._durable = folder, owner, durable
        self._found: dict[str, _Found] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith("."):  # cut off by a kill: nothing was done with it
                path.unlink()
                continue
            label, _ = self._read(path)
            self._found[label.name] = _Found(path, label.about)

    def once(self, name: str, about: bytes, make: Callable[[], bytes]) -> bytes:
        """See `Kept.once`.

        Raises:
            IntegrityError: what is kept was made from something else, or is damaged.
            OSError: it cannot be written; nothing is kept.
        """
        found = self._found.get(name)
        if found is None:
            body = make()
            self._write(name, about, body)
            return body
        if found.about != about:
            text = f"{name}: kept by an earlier attempt at this run for other content; a repeat must be the same"
            raise IntegrityError("kept.other", text)
        return self._read(found.path)[1]

    def drop(self, prefix: str) -> None:
        """See `Kept.drop`."""
        for name in [name for name in self._found if name.startswith(prefix)]:
            self._found.pop(name).path.unlink(missing_ok=True)

    def _write(self, name: str, about: bytes, body: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        label = msgspec.msgpack.encode(_Label(owner=self._owner, name=name, about=about))
        head = len(label).to_bytes(_LENGTH_BYTES, "big") + label
        digest = hashlib.sha256(head)
        digest.update(body)
        path = self._folder / _file_of(name)
        replace_file(path, _MAGIC + digest.digest() + head, body, durable=self._durable)
        self._found[name] = _Found(path, about)

    def _read(self, path: Path) -> tuple[_Label, bytes]:
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError:
            raise _damaged(path, "is gone") from None
        start = len(_MAGIC) + _DIGEST_BYTES
        if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
            raise _damaged(path, "is damaged")
        at = start + _LENGTH_BYTES
        end = at + int.from_bytes(data[start:at], "big")
        try:
            label = msgspec.msgpack.decode(data[at:end], type=_Label)
        except msgspec.MsgspecError as error:
            raise _damaged(path, "is damaged") from error
        if label.owner != self._owner:
            raise IntegrityError("kept.run", f"kept/{path.name} is that of another run or party; the run cannot go on")
        if path.name != _file_of(label.name):
            raise _damaged(path, f"holds {label.name}, which stands elsewhere")
        return label, bytes(data[end:])


def _file_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:_NAME_DIGITS]


def _damaged(path: Path, how: str) -> IntegrityError:
    return IntegrityError("kept.damaged", f"kept/{path.name} {how}; the run cannot go on")

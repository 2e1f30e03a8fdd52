"""What a house's people said about a spec on some of their records: a small file each, and the record of all of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fedcredit.errors import IntegrityError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.people import Person, note_decision

__all__ = ["Word", "give_word", "read_word", "word_file"]


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What the house's people said.

    Attributes:
        spec_digest: About which spec.
        data: On which of the house's records.
        approved: False = one of them denied it, which is the last word until somebody approves again.
        when: RFC 3339, of the last who said something.
        people: Who approved, or the one who denied.
    """

    spec_digest: str
    data: str
    approved: bool
    when: str
    people: tuple[Person, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """Who approved, each once; a word from before people were noted is that of one."""
        if not self.approved:
            return ()
        return tuple(dict.fromkeys(one.user for one in self.people)) or ("",)


def read_word(folder: Path, digest: str, data: str) -> Word | None:
    """What was said; None = nothing.

    Raises:
        IntegrityError: the file is damaged, or about something else.
    """
    path = word_file(folder, digest, data)
    try:
        word = msgspec.json.decode(path.read_bytes(), type=Word)
    except FileNotFoundError:
        return None
    except ValueError:
        raise IntegrityError("consent.damaged", f"{path.name}: damaged; decide on this run again") from None
    if (word.spec_digest, word.data) != (digest, data):
        raise IntegrityError("consent.damaged", f"{path.name}: is about another run; decide on this run again")
    return word


def give_word(folder: Path, logs: Path, run: str, word: Word) -> Word:
    """Adds one person's word to what was said before.

    Args:
        folder: Of the words; has to be there.
        logs: The home's folder of logs; the record there is written first.
        run: The run that was looked at.
        word: With one person.

    Returns:
        What stands now: all who approved, or the one who denied.
    """
    person = word.people[-1]
    with _alone(folder):
        try:
            before = read_word(folder, word.spec_digest, word.data)
        except IntegrityError:
            before = None  # damaged: everyone says it again
        earlier = before.people if before is not None and before.approved and word.approved else ()
        people = (*(one for one in earlier if one.user != person.user), person)
        word = msgspec.structs.replace(word, people=people)
        about = {"run": run, "spec_digest": word.spec_digest, "data": word.data}
        note_decision(logs, person, "approved" if word.approved else "denied", about)
        replace_file(word_file(folder, word.spec_digest, word.data), msgspec.json.encode(word))
    return word


def word_file(folder: Path, digest: str, data: str) -> Path:
    """Names of records are the house's own and may hold anything."""
    return folder / f"{digest}.{hashlib.sha256(data.encode()).hexdigest()[:16]}.json"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of two who decide in the same moment, neither is lost."""
    file = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)

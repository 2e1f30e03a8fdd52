"""What leaves a house beside the sealed messages: nothing of its records, nothing of its places, and always a name."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator import worker as coordinator_worker
from fedcredit.runtime.daemon.worker_process import _LINE
from fedcredit.runtime.session import session
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import encode_struct
from nodes import worker as node_worker

BANK, TAX = PartyId("bank"), PartyId("tax_office")
RUN = RunId("ab" * 16)
BOOST = {
    "run": {"model": "boost"},
    "boost": {"trees": 2, "depth": 2, "min_child_rows": 20, "min_bin_rows": 40},
    "privacy": {"noise_rows": 4.0},
}


def test_what_flower_carries_holds_no_record(trial: Callable[..., Any]) -> None:
    made = trial(rows=300, sections=BOOST)
    proposal = made.proposal()
    order = made.order(proposal)
    carried = [proposal, order, *(encode_struct(made.consider(one, proposal)) for one in made.spec.parties)]
    ended = made.play_all(order)
    assert all(one.ok for one in ended.values())
    carried += [(made.homes[one].runs / RUN / "finished.bin").read_bytes() for one in ended]
    everything = b"\x00".join(carried)
    assert re.search(rb"E[0-9]{5}", everything) is None
    places = [
        str(made.folder).encode(),
        b".csv",
        b"sqlite",
        *(one.identity._key.private_bytes_raw() for one in homes(made)),
    ]
    assert not [one for one in places if one in everything]
    values = {
        line for one in made.spec.parties for line in numbers((made.folder / "records" / f"{one}.csv").read_text())
    }
    assert len(values) > 300
    assert not [one for one in values if one.encode() in everything]


def homes(made: Any) -> list[Any]:
    return list(made.homes.values())


def numbers(table: str) -> list[str]:
    """Numbers long enough to be no accident."""
    return [one for one in re.findall(r"-?[0-9]+\.[0-9]+", table) if len(one) >= 7]


def told(module: Any, arguments: list[str], message: bytes, patch: pytest.MonkeyPatch) -> tuple[int, bytes, list[str]]:
    """Exit status, answer, and lines on standard error of a worker."""
    out, words = io.BytesIO(), io.StringIO()
    patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(message)))
    patch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    patch.setattr(sys, "stderr", words)
    return module.main(arguments), out.getvalue(), words.getvalue().splitlines()


@pytest.mark.parametrize(("module", "party"), [(node_worker, "bank"), (coordinator_worker, COORDINATOR)])
def test_a_home_that_does_not_open_is_described_to_its_own_people_only(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, module: Any, party: str
) -> None:
    made = toy()
    home = made.home(party).folder
    (home / "keys" / "tls.key").chmod(0o644)
    status, out, words = told(module, [str(home), "run"], b"", monkeypatch)
    assert (status, out, len(words)) == (3, b"", 2)
    assert str(home) in words[0]
    last = _LINE.fullmatch(words[1])
    assert last is not None
    assert last["code"] == "home.unusable"
    assert str(home) not in words[1]


@pytest.mark.parametrize(("module", "party"), [(node_worker, "bank"), (coordinator_worker, COORDINATOR)])
def test_an_order_that_is_none_is_named(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, module: Any, party: str
) -> None:
    home = toy().home(party).folder
    status, out, words = told(module, [str(home), "run"], b"nonsense", monkeypatch)
    assert (status, out) == (3, b"")
    assert words[-1].endswith("[wire.malformed]")
    assert told(module, [str(home), "fly"], b"", monkeypatch)[0] == 2


def test_a_disk_without_space_before_the_session_is_named(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy()
    order = made.order(made.proposal())
    folder = made.home("bank").state / "runs" / RUN
    (folder / "bound").unlink()
    (folder / "bound").mkdir()  # cannot be read as a file
    status, out, words = told(node_worker, [str(made.home("bank").folder), "run"], order, monkeypatch)
    assert (status, out) == (3, b"")
    assert words[-1].endswith("(EISDIR) [run.storage]")
    assert str(made.folder) not in words[-1]


def test_attempts_have_an_end(toy: Callable[..., Any]) -> None:
    made = toy()
    order = made.order(made.proposal())
    (made.home("tax_office").state / "runs" / RUN / "attempt").write_text(str(1 << 32))
    (made.home("tax_office").state / "runs" / RUN / "secrets" / "run").write_bytes(bytes(32))
    ended = made.play_all(order)
    assert (ended[BANK].code, ended[BANK].culprit) == ("run.attempt", "tax_office")
    assert (made.home("bank").state / "runs" / RUN / "attempt").read_text() == "1"


def test_a_house_can_leave_while_its_role_waits_for_a_window(
    toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy()
    order = made.order(made.proposal())
    held = threading.Event()

    async def full(link: Any, _parcels: Any, _body: bytes) -> None:
        held.set()
        await asyncio.sleep(3600)

    make = session.__dict__["ExchangeLink"]

    def blocked(settings: Any) -> Any:
        link = make(settings)
        if settings.party == "bank":
            link.send = full.__get__(link)
        return link

    monkeypatch.setattr(session, "ExchangeLink", blocked)
    monkeypatch.setattr(session, "_TELL_SECONDS", 0.2)

    def leave() -> None:
        held.wait(10)
        (made.home("bank").state / "runs" / RUN / "stop").touch()

    leaving = threading.Thread(target=leave)
    leaving.start()
    started = time.monotonic()
    finished = made.play(BANK, order)
    leaving.join()
    assert (finished.ok, finished.code, finished.culprit) == (False, "run.left", "bank")
    assert time.monotonic() - started < 10

"""A scorecard run that was killed goes on from anywhere, after its totals have begun too: the same bytes, the same
model, nothing charged twice, and the key of the totals stays in its house and ends with the run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fedcredit.crypto.bfv_header import HEADER_BYTES
from fedcredit.crypto.ternary import TERNARY_BYTES
from fedcredit.crypto.totals import TotalsSecret
from fedcredit.errors import IntegrityError, TransportError
from fedcredit.governance.audit import verify_directory
from fedcredit.governance.gate import Released
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND
from fedcredit.runtime.kept import KeptFiles
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.party_end import PEER_ENDED
from fedcredit.runtime.simulate import simulate
from fedcredit.runtime.unfinished import find_unfinished
from fedcredit.spec.load import load_spec
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import CostKind

Make = Callable[..., Path]
Stop = int | tuple[str, int]  # how many messages are delivered, or the last of a kind that is

HOLDERS = ("tax_office", "customs")
POINTS: dict[str, tuple[str, int]] = {
    "key": ("scorecard.totals_key", 1),
    "one-partial-of-two": ("scorecard.partial", 1),
    "first-totals": ("scorecard.total", 1),
    "sums-after-them": ("group_sum.answer", 9),
    "second-totals": ("scorecard.total", 2),
    "scoring-begins": ("scorecard.step", 7),
    "one-partial-of-the-scoring": ("scorecard.partial", 5),
    "last-message": ("scorecard.total", 3),
}

# Ends itself in the middle of a run, as the kernel or an administrator would.
KILLED = """
import os, signal, sys
from pathlib import Path
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
kind, count, config, out = sys.argv[1:]
deliver, seen = LocalNetwork._deliver, 0
def dying(self, sender, recipient, released):
    global seen
    deliver(self, sender, recipient, released)
    seen += released.kind == kind
    if seen == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
LocalNetwork._deliver = dying
out = Path(out)
simulate(load_spec(Path(config)), out, resume=any(out.parent.glob(f".{out.name}.*")))
"""


@dataclass
class Wire:
    """Records what crosses; behind one message the wire is cut and the process is interrupted."""

    stop: Stop | None = None
    cut: bool = False
    envelopes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def _last(self) -> bool:
        if self.stop is None or isinstance(self.stop, int):
            return len(self.kinds) == self.stop
        return self.kinds.count(self.stop[0]) == self.stop[1]

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        deliver = LocalNetwork._deliver

        def watched(network: LocalNetwork, sender: PartyId, recipient: PartyId, released: Released) -> None:
            digest = hashlib.sha256(released.data).hexdigest()
            self.envelopes[sender, recipient, released.sequence] = f"{released.kind} {digest}"
            self.bodies.append(released.data)
            if self.cut:  # paid for and signed, but nobody has it
                return
            deliver(network, sender, recipient, released)
            self.kinds.append(released.kind)
            if self._last():
                self.cut = True
                for end in network._ends.values():
                    end.post.broken = TransportError(PEER_ENDED, "the wire is cut")
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(LocalNetwork, "_deliver", watched)


def interrupted(config: Path, out: Path, stop: Stop, *, resume: bool = False) -> Wire:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire(stop)
        wire.watch(patch)
        with pytest.raises(KeyboardInterrupt):
            simulate(load_spec(config), out, resume=resume)
    assert not out.exists()
    return wire


def resumed(config: Path, out: Path) -> tuple[dict[str, Any], Wire]:
    with pytest.MonkeyPatch.context() as patch:
        wire = Wire()
        wire.watch(patch)
        return dict(simulate(load_spec(config), out, resume=True).summary), wire


def hidden(out: Path) -> Path:
    (folder,) = out.parent.glob(f".{out.name}.*")
    return folder


def owner(out: Path, party: str) -> str:
    (one,) = find_unfinished(out)
    return hashlib.sha256(f"{one.spec_digest}/{one.run}".encode()).hexdigest() + f"/{party}"


def kept(out: Path, party: str) -> KeptFiles:
    return KeptFiles(hidden(out) / "kept" / party, owner(out, party))


def key_of_the_totals(out: Path) -> bytes:
    run = owner(out, "bank").split("/")[0]
    return kept(out, "bank").once("scorecard/key", run.encode(), lambda: b"")


def charged(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for path in sorted((folder / "ledger").glob("*.sqlite")):
        connection = sqlite3.connect(path)
        query = "SELECT counterparty, kind, feature, amount FROM totals ORDER BY 1, 2, 3"
        found[path.stem] = connection.execute(query).fetchall()
        connection.close()
    return found


def same(out: Path, other: Path) -> None:
    parts, other_parts = (
        {path.parent.name: json.loads(path.read_text()) for path in (one / "model").glob("*/scorecard.json")}
        for one in (out, other)
    )
    assert parts == other_parts
    assert parts.keys() == {"bank", *HOLDERS}
    assert pl.read_parquet(out / "predictions.parquet").equals(pl.read_parquet(other / "predictions.parquet"))
    assert charged(out) == charged(other)
    assert all(any(kind == CostKind.ROW_BITS for _, kind, *_ in charged(out)[one]) for one in HOLDERS)
    assert verify_directory(out / "audit").keys() == {"bank", *HOLDERS, "coordinator"}
    assert not (out / "kept").exists()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, consortium: Make) -> Path:
    sections = {"privacy": {"enforce": True}, "crypto": {"profile": "unsafe-plaintext"}}
    return consortium(tmp_path_factory.mktemp("killed"), holders=HOLDERS, rows=1200, sections=sections)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """The same run, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "o"
    simulate(load_spec(config), out)
    return out


def goes_on(config: Path, whole: Path, out: Path, stops: Sequence[Stop]) -> None:
    before = [interrupted(config, out, stop, resume=place > 0) for place, stop in enumerate(stops)]
    summary, after = resumed(config, out)
    assert summary["restarts"] == len(stops)
    for one in before:
        assert {key for key, sent in one.envelopes.items() if after.envelopes[key] != sent} == set()
    same(out, whole)


@pytest.mark.parametrize("point", POINTS)
def test_it_goes_on_with_the_same_bytes(config: Path, whole: Path, tmp_path: Path, point: str) -> None:
    goes_on(config, whole, tmp_path / "o", [POINTS[point]])


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_killed_after_every_message(config: Path, whole: Path, tmp_path: Path, quarter: int) -> None:
    """Each run of the quarter goes on to the next message, so that nearly all of them are sent again many times."""
    messages = len((whole / "transcript.jsonl").read_text().splitlines())
    stops = range(1 + quarter, messages + 1, 4)
    assert len(stops) >= 20
    goes_on(config, whole, tmp_path / "o", list(stops))


@pytest.mark.slow
def test_killed_three_times_by_the_kernel_under_the_default_profile(tmp_path: Path, consortium: Make) -> None:
    config = consortium(tmp_path / "c", holders=HOLDERS, rows=1200, sections={"privacy": {"enforce": True}})
    simulate(load_spec(config), tmp_path / "whole")
    out = tmp_path / "o"
    for kind, count in (("scorecard.total", 1), ("scorecard.total", 2), ("scorecard.partial", 5)):
        words = [sys.executable, "-W", "ignore", "-c", KILLED, kind, str(count), str(config), str(out)]
        process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
        assert process.returncode == -signal.SIGKILL, process.stderr
    summary, _ = resumed(config, out)
    assert summary["restarts"] == 3
    same(out, tmp_path / "whole")


def test_a_single_holder(tmp_path: Path, consortium: Make) -> None:
    """Nothing masks its totals: what it has kept is encrypted under the label holder's key alone."""
    sections = {"crypto": {"profile": "unsafe-plaintext"}}
    config = consortium(tmp_path / "c", holders=HOLDERS[:1], rows=900, sections=sections)
    out = tmp_path / "o"
    before = interrupted(config, out, ("scorecard.total", 2))
    _, after = resumed(config, out)
    assert before.envelopes.items() <= after.envelopes.items()


def forms(key: bytes) -> Iterator[bytes]:
    """Parts of a secret key as they might stand somewhere: as bytes, in hexadecimal, in base64."""
    for at in range(0, len(key), 48):
        part = key[at : at + 24]
        yield from (part[:16], part.hex()[:32].encode(), base64.b64encode(part))


def test_the_key_is_in_its_owners_folder_and_nowhere_else(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    before = interrupted(config, out, ("scorecard.partial", 5))
    folder = hidden(out)
    state = key_of_the_totals(out)
    assert state
    start = HEADER_BYTES + 32
    key = state[start : start + TERNARY_BYTES]
    found = list(forms(key))

    def named(folder: Path) -> set[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)) for path in files if any(one in path.read_bytes() for one in found)}

    (place,) = named(folder)
    assert place.startswith("kept/bank/")
    assert stat.S_IMODE((folder / place).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "kept" / "bank").stat().st_mode) == 0o700
    _, after = resumed(config, out)
    assert named(out) == set()
    assert list(tmp_path.glob(".*")) == []
    sent = b"".join([*before.bodies, *after.bodies])
    assert not any(one in sent for one in found)
    public = state[start + TERNARY_BYTES :]
    assert public[-64:] in sent  # what is looked for that way would be found


def files(out: Path, party: str) -> list[Path]:
    found = sorted((hidden(out) / "kept" / party).iterdir())
    assert found
    return found


def spoil_bytes(out: Path, party: str) -> None:
    for path in files(out, party):
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)


def spoil_content(out: Path, party: str) -> None:
    for path in files(out, party):
        path.write_bytes(b"[1]")


def foreign(out: Path, party: str, of: str) -> None:
    """As another run or party would have written it."""
    names = [path.name for path in files(out, party)]
    shutil.rmtree(hidden(out) / "kept" / party)
    other = KeptFiles(hidden(out) / "kept" / party, of)
    for name in ("scorecard/key", "scorecard/partial/train/0"):
        other.once(name, b"", lambda: b"content")
    assert names[0] in {path.name for path in files(out, party)}


def another_key(out: Path) -> None:
    """A key of this run that was not the one sent."""
    run = owner(out, "bank").split("/")[0]
    TotalsSecret.restore(key_of_the_totals(out), TOTAL_BOUND, run)  # as the run itself binds it
    lose(out, "bank")
    kept(out, "bank").once("scorecard/key", run.encode(), lambda: TotalsSecret(TOTAL_BOUND).kept(run))


def lose(out: Path, party: str) -> None:
    shutil.rmtree(hidden(out) / "kept" / party)


SPOILT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "bank-bytes": (lambda out: spoil_bytes(out, "bank"), "kept.damaged", "is damaged; the run cannot go on"),
    "bank-content": (lambda out: spoil_content(out, "bank"), "kept.damaged", "is damaged; the run cannot go on"),
    "bank-foreign": (lambda out: foreign(out, "bank", "another run/bank"), "kept.run", "that of another run or party"),
    "bank-other": (another_key, "escrow.bound", "kept scorecard/key: bound to other content before"),
    "bank-lost": (
        lambda out: lose(out, "bank"),
        "escrow.bound",
        "kept scorecard/key: bound to other content before",
    ),
    "holder-bytes": (lambda out: spoil_bytes(out, "customs"), "kept.damaged", "is damaged; the run cannot go on"),
    "holder-content": (lambda out: spoil_content(out, "customs"), "kept.damaged", "is damaged; the run cannot go on"),
    "holder-foreign": (
        lambda out: foreign(out, "customs", owner(out, "tax_office")),
        "kept.run",
        "that of another run or party",
    ),
    "holder-lost": (
        lambda out: lose(out, "customs"),
        "escrow.bound",
        "kept scorecard/partial/train/0: bound to other content before",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_damaged_foreign_or_lost_is_named(config: Path, tmp_path: Path, how: str) -> None:
    spoil, code, text = SPOILT[how]
    out = tmp_path / "o"
    interrupted(config, out, ("scorecard.total", 1))
    before = charged(hidden(out))
    spoil(out)
    with pytest.raises(IntegrityError, match=text) as caught:
        simulate(load_spec(config), out, resume=True)
    assert caught.value.code == code
    assert not out.exists()
    (failed,) = tmp_path.iterdir()  # what was disclosed stays disclosed; the key does not stay
    assert charged(failed) == before
    assert not (failed / "kept").exists()


def test_a_second_key_is_refused_by_its_holders(config: Path, tmp_path: Path) -> None:
    """A label holder that has its totals encrypted twice is stopped, whatever its own escrow says."""
    out = tmp_path / "o"
    interrupted(config, out, ("scorecard.total", 1))
    lose(out, "bank")
    escrow = hidden(out) / "escrow" / "bank.jsonl"
    lines = [line for line in escrow.read_text().splitlines() if "scorecard/key" not in line]
    escrow.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(IntegrityError, match="totals-key bank: bound to other content before"):
        simulate(load_spec(config), out, resume=True)

"""Runs over long-distance lines, beside what ``[network]`` says they would take.

usage: python benchmarks/wan.py [--runs credit-scorecard credit-boost taiwan-scorecard taiwan-boost] [--repeat N]

Needs root, ``ip`` and ``setpriv``. Every house is a network namespace, a user and a folder of its own (`star.py`); each
cell gives all lines the same bandwidth and latency, with ``tc netem`` where the kernel has it, else in user space
(`line.py`). Seconds are those from the bank's first stage to its last, less those of the same run over lines without
limits: what is left is what `NetworkModel` models. Bytes are those of all lines, both ways. Taiwan needs
FEDCREDIT_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId, RunId

if TYPE_CHECKING:
    from benchmarks import star as stars
    from benchmarks.boost import replayed
else:
    import star as stars
    from boost import replayed

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "simulations"
RUNS = {
    "credit-scorecard": "credit_data_scorecard.toml",
    "credit-boost": "credit_data_boost.toml",
    "taiwan-scorecard": "taiwan_scorecard.toml",
    "taiwan-boost": "taiwan_boost.toml",
}
CELLS = {"100 Mbit/s, 10 ms": (100.0, 10.0), "10 Mbit/s, 50 ms": (10.0, 50.0)}
"""Bandwidth of each line; one way between two parties, so half of it on each line."""


@dataclass
class Measured:
    """One run over one kind of lines.

    Args:
        seconds: From the bank's first stage to its last.
        up, down: Bytes of each party's line.
    """

    seconds: float
    up: dict[PartyId, int]
    down: dict[PartyId, int]

    @property
    def carried(self) -> int:
        return sum(self.up.values()) + sum(self.down.values())


@dataclass
class Cell:
    """One run over one kind of lines, measured and modelled.

    Args:
        free: The same run over lines without limits; the quickest.
        limited: Over these lines; the quickest.
        modelled_seconds, modelled_bytes: By `NetworkModel`.
    """

    free: Measured
    limited: Measured
    modelled_seconds: float
    modelled_bytes: int

    @property
    def seconds(self) -> float:
        """What the network took."""
        return self.limited.seconds - self.free.seconds

    @property
    def seconds_ratio(self) -> float:
        return self.seconds / self.modelled_seconds

    @property
    def bytes_ratio(self) -> float:
        return self.limited.carried / self.modelled_bytes


@dataclass
class Wan:
    """A star whose lines are changed between runs."""

    star: stars.Star
    loaded: LoadedSpec
    number: int = 0
    transcript: list[TranscriptEntry] = field(default_factory=list)

    def play(self, mbps: float, latency_ms: float) -> Measured:
        """One run; the houses have forgotten those before it."""
        star = self.star
        self.number += 1
        run = RunId(f"{self.number:032x}")
        star.shape(None)
        star.forget()
        order = star.order(run, self.loaded)
        star.shape(stars.Line(mbps, latency_ms / 2) if mbps else None)
        before = {party: star.carried(party) for party in self.loaded.spec.parties}
        star.begin(order)
        ended = star.finish(run)
        failed = {party: one.text for party, one in ended.items() if not one.ok}
        if failed:
            raise RuntimeError(str(failed))
        after = {party: star.carried(party) for party in self.loaded.spec.parties}
        up, down = ({party: after[party][way] - before[party][way] for party in after} for way in (0, 1))
        return Measured(self._seconds(run), up, down)

    def _seconds(self, run: RunId) -> float:
        """From the audit log of the label holder, which tells each stage."""
        home = self.star.homes[self.loaded.spec.label_holder.name]
        lines = (home.folder / "runs" / run / "audit" / f"{home.party}.jsonl").read_text("utf-8").splitlines()
        times = [datetime.fromisoformat(one["time"]) for one in map(json.loads, lines) if one["event"] == "stage"]
        return (times[-1] - times[0]).total_seconds()

    def simulated(self, out: Path) -> None:
        """What is sent, message by message."""
        text = (simulate(self.loaded, out).out / "transcript.jsonl").read_text("utf-8")
        self.transcript = [_entry(json.loads(line)) for line in text.splitlines()]

    def cell(self, mbps: float, latency_ms: float, free: Measured, limited: Measured) -> Cell:
        model = replayed(self.transcript, mbps, latency_ms)
        carried = sum(model.uploaded.values()) + sum(model.downloaded.values())
        return Cell(free, limited, model.seconds, carried)


def _entry(fields: dict[str, Any]) -> TranscriptEntry:
    return TranscriptEntry(kind=fields.pop("type"), body_sha256=fields.pop("sha256"), **fields)


@contextmanager
def wan(config: Path, settings: Sequence[str] = ()) -> Iterator[Wan]:
    """A consortium for a configuration."""
    folder = Path(tempfile.mkdtemp(prefix="fedcredit-wan-"))
    folder.chmod(0o755)
    try:
        loaded = load_spec(config, list(settings))
        with stars.Star(folder / "star", loaded, shaped=True) as star:
            star.start()
            found = Wan(star, loaded)
            found.simulated(folder / "simulated")
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(config: Path, repeat: int, settings: Sequence[str] = ()) -> Iterator[tuple[str, Cell]]:
    """Every kind of lines; the quickest of several tries, because others may use the machine."""
    with wan(config, settings) as found:
        found.play(0, 0)  # loops are compiled, files are read
        free = min((found.play(0, 0) for _ in range(repeat)), key=lambda one: one.seconds)
        for name, figures in CELLS.items():
            limited = min((found.play(*figures) for _ in range(repeat)), key=lambda one: one.seconds)
            yield name, found.cell(*figures, free, limited)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    why = stars.unavailable()
    if why:
        sys.exit(why)
    console = Console(width=max(Console().width, 150))
    lines = "netem" if stars.has_netem() else "in user space: this kernel has no netem"
    table = Table(title=f"lines {lines}; seconds and bytes of the network, measured and modelled")
    for name in (
        "run",
        "lines",
        "s without limits",
        "s",
        "network s",
        "modelled s",
        "ratio",
        "MB",
        "modelled MB",
        "ratio",
    ):
        table.add_column(name, justify="left" if name in {"run", "lines"} else "right")
    for run in given.runs:
        if run.startswith("taiwan") and "FEDCREDIT_DATA" not in os.environ:
            console.print(f"{run}: left out, FEDCREDIT_DATA is not set")
            continue
        for lines, cell in measure(CONFIGS / RUNS[run], given.repeat, given.settings):
            cells = [
                *(f"{cell.free.seconds:.1f}", f"{cell.limited.seconds:.1f}", f"{cell.seconds:.1f}"),
                *(f"{cell.modelled_seconds:.1f}", f"{cell.seconds_ratio:.2f}", f"{cell.limited.carried / 1e6:.1f}"),
                *(f"{cell.modelled_bytes / 1e6:.1f}", f"{cell.bytes_ratio:.2f}"),
            ]
            table.add_row(run, lines, *cells)
            console.print(run, lines, *cells)
    console.print(table)


if __name__ == "__main__":
    main()

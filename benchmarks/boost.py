"""What encrypted boosting costs, how that grows, and what its protection costs in accuracy.

usage: python benchmarks/boost.py             the peers' split of the Taiwan data, XGBoost run beside it
       python benchmarks/boost.py --grid      synthetic data: rows x columns x bins, with the fit of cost against rows
       python benchmarks/boost.py --million   one million rows x 30 columns x 32 bins
       python benchmarks/boost.py --price     accuracy with and without noise and caps, on each public set

Every case runs in a fresh process with all parties in it. CPU seconds are those of all parties together; bytes are all
messages, both ways. Real data need FEDCREDIT_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from fedcredit.attack.rehearsal import InMemory, Rehearsal
from fedcredit.data.table import HolderTable
from fedcredit.kernels.metrics import auc
from fedcredit.runtime.local import LocalNetwork
from fedcredit.runtime.metering import NetworkModel
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.spec.load import LoadedSpec, parse_toml
from fedcredit.types import PartyId

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"1 Gbit/s": (1000.0, 0.0), "100 Mbit/s, 10 ms": (100.0, 10.0), "10 Mbit/s, 50 ms": (10.0, 50.0)}
"""Modelled: megabits a second and one-way milliseconds of each party's line; seconds are of all messages of the run."""
BANK, HOLDER = PartyId("bank"), PartyId("tax_office")
CONSOLE = Console(width=max(Console().width, 190))

SPEC = """
[run]
name = "synthetic"
model = "boost"
mode = "simulation"
[align]
mode = "plain"
[[party]]
name = "bank"
role = "label_holder"
source = "bank.csv"
label = "bad"
[[party]]
name = "tax_office"
role = "feature_holder"
source = "tax.csv"
[boost]
trees = {trees}
depth = 3
bins = {bins}
holder_bins = {bins}
holder_thresholds = 0
[privacy]
noise_rows = 0.0
enforce = false
[network]
timeout_s = 600.0
"""


class Clock(InMemory):
    """Notes when each tree is done, by the label holder's checkpoints, and when the first one begins."""

    def __init__(self) -> None:
        super().__init__()
        self.network: LocalNetwork | None = None
        self.begun: tuple[float, float] | None = None
        self.trees: list[tuple[float, float]] = []

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def save(self, state: bytes) -> None:
        super().save(state)
        self.trees.append(self._now())

    def watch(self, sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        del sender, recipient
        if kind == "boost.tree" and self.begun is None:
            self.begun = self._now()
        return (data,)


def tables(rows: int, columns: int, seed: int = 1) -> dict[PartyId, HolderTable]:
    """Ten columns at the bank, ``columns`` at the other party; every third one says something of the default."""
    source = np.random.default_rng(seed)
    found = {}
    ids = pl.Series("id", [f"{row:08d}" for row in range(rows)])
    own = source.normal(size=(rows, 10))
    theirs = source.normal(size=(rows, columns))
    logit = -1.5 + 0.4 * own[:, ::3].sum(axis=1) + 0.4 * np.abs(theirs[:, ::3]).sum(axis=1) - 0.3 * columns / 3
    bad = (source.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    for party, values, label in ((BANK, own, bad), (HOLDER, theirs, None)):
        frame = {f"c{place}": pl.Series(values[:, place]) for place in range(values.shape[1])}
        found[party] = HolderTable(party, ids, label, frame, digest=f"synthetic/{party}/{rows}")
    return found


def case(rows: int, columns: int, bins: int, trees: int) -> dict[str, Any]:
    """One synthetic run, in this process."""
    loaded = LoadedSpec(parse_toml(SPEC.format(bins=bins, trees=trees)), Path(), Path("synthetic.toml"))
    clock = Clock()
    rehearsal = Rehearsal(loaded, tables=tables(rows, columns), tamper=clock.watch, checkpoints={BANK: clock})
    network = rehearsal.network()
    started = (time.perf_counter(), time.process_time())
    result = rehearsal.play(network)[BANK]
    begun = clock.begun or started
    first, last = clock.trees[0], clock.trees[-1]
    counted = max(1, len(clock.trees) - 1)  # the first tree may compile
    per_tree = [(end - start) / counted for start, end in zip(first, last, strict=True)]
    told = [one for one in network.transcript if one.stage == "boost"]
    once = {"group_sum.hints", "group_sum.setup", "group_sum.grouping_commitment", "boost.basis", "boost.shapes"}
    test = result.index.test
    return {
        "rows": rows,
        "columns": columns,
        "bins": bins,
        "setup_s": begun[0] - started[0],
        "setup_cpu": begun[1] - started[1],
        "tree_s": per_tree[0],
        "tree_cpu": per_tree[1],
        "cpu": {party: seconds for party, seconds in network.cpu_seconds.items() if seconds > 0.05},
        "hints_mb": sum(one.bytes for one in told if one.kind == "group_sum.hints") / 1e6,
        "tree_mb": sum(one.bytes for one in told if one.kind not in once) / trees / 1e6,
        "auc": float(auc(result.bad[test], result.trees.margins[test])),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "modelled": {name: modelled(network, *figures) for name, figures in NETWORKS.items()},
        "trees": trees,
    }


def modelled(network: LocalNetwork, bandwidth_mbps: float, latency_ms: float) -> float:
    """Seconds that a run's messages would take: every party reads all that has come before it speaks again."""
    return replayed(network.transcript, bandwidth_mbps, latency_ms).seconds


def replayed(transcript: Sequence[TranscriptEntry], bandwidth_mbps: float, latency_ms: float) -> NetworkModel:
    """A model after a run's messages; entries of one sender with one body, for several recipients, are a broadcast."""
    model, unread = NetworkModel(bandwidth_mbps, latency_ms), dict[PartyId, list[float]]()
    latest: dict[tuple[PartyId, str], dict[PartyId, int]] = {}
    broadcasts = []
    for entry in transcript:
        together = latest.get((entry.sender, entry.body_sha256), {})
        if not together or entry.recipient in together:
            together = latest[entry.sender, entry.body_sha256] = {}
        together[entry.recipient] = entry.bytes
        broadcasts.append(together)
    booked: dict[int, dict[PartyId, float]] = {}
    for entry, together in zip(transcript, broadcasts, strict=True):
        if id(together) not in booked:
            for arrival in unread.pop(entry.sender, []):
                model.received(entry.sender, arrival)
            booked[id(together)] = model.sent(entry.sender, together)
        unread.setdefault(entry.recipient, []).append(booked[id(together)][entry.recipient])
    for recipient, arrivals in unread.items():
        model.received(recipient, max(arrivals))
    return model


def in_process(arguments: Sequence[str]) -> dict[str, Any]:
    """A case in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def simulate(config: str, *settings: str) -> dict[str, Any]:
    """Summary of a shipped configuration, by the command that a user gives."""
    with tempfile.TemporaryDirectory() as folder:
        sets = [part for setting in settings for part in ("--set", setting)]
        command = [
            *(sys.executable, "-c", "import sys; from fedcredit.cli import main; sys.exit(main())"),
            *("simulate", str(ROOT / "configs" / "simulations" / f"{config}.toml")),
            *("--out", str(Path(folder) / "run"), "--json", *sets),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{config}: {done.stderr.strip()[-2000:]}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def fit(sizes: Sequence[float], costs: Sequence[float]) -> str:
    """Cost = a + b n by least squares, and the exponent of growth between the two largest sizes."""
    n, cost = np.asarray(sizes), np.asarray(costs)
    slope, start = np.polyfit(n, cost, 1)
    rest = cost - (start + slope * n)
    determined = 1 - float(rest @ rest) / float(((cost - cost.mean()) ** 2).sum())
    exponent = math.log(costs[-1] / costs[-2]) / math.log(sizes[-1] / sizes[-2])
    return f"{start:.3f} + {slope * 1e5:.4f} n/100k (R² {determined:.3f}), last step n^{exponent:.2f}"


def grid(sizes: Sequence[int], trees: int) -> None:
    """Rows x columns x bins on synthetic data."""
    table = Table(title=f"synthetic, one holder, depth 3, {trees} trees, no noise; all parties in one process")
    names = ["rows", "F", "B", "hints s", "hints MB", "tree s", "tree CPU s", "bank CPU s", "holder CPU s", "tree MB"]
    for name in [*names, "AUC", "peak GB", *NETWORKS]:
        table.add_column(name, justify="right")
    fits = []
    for columns in (10, 30):
        for bins in (16, 32):
            found = [in_process(["--case", str(rows), str(columns), str(bins), str(trees)]) for rows in sizes]
            for one in found:
                table.add_row(*_cells(one))
            fits.append((columns, bins, fit([one["rows"] for one in found], [one["tree_cpu"] for one in found])))
    CONSOLE.print(table)
    for columns, bins, text in fits:
        CONSOLE.print(f"F = {columns}, B = {bins}: CPU seconds of a tree = {text}")


def _cells(one: Mapping[str, Any]) -> list[str]:
    cpu = one["cpu"]
    return [
        f"{one['rows']:,}",
        str(one["columns"]),
        str(one["bins"]),
        f"{one['setup_s']:.1f}",
        f"{one['hints_mb']:.0f}",
        f"{one['tree_s']:.3f}",
        f"{one['tree_cpu']:.3f}",
        f"{cpu.get(BANK, 0):.1f}",
        f"{cpu.get(HOLDER, 0):.1f}",
        f"{one['tree_mb']:.2f}",
        f"{one['auc']:.4f}",
        f"{one['peak_gb']:.2f}",
        *(f"{one['modelled'][name]:.1f} s" for name in NETWORKS),
    ]


def peers() -> None:
    """The split of the Taiwan data that other systems are measured on."""
    table = Table(title="Taiwan, the peers' split: 20 trees, 32 bins, no noise and no cap, hints included")
    for name in ("run", "train s", "total s", "CPU s", "MB", "AUC", "XGBoost", "x XGBoost's CPU"):
        table.add_column(name, justify="left" if name == "run" else "right")
    beside = {depth: in_process(["--xgboost", str(depth)]) for depth in (3, 5)}
    for name, depth, profile in (
        ("depth 3, hinted", 3, "rlwe-8192"),
        ("depth 5, hinted", 5, "rlwe-8192"),
        ("depth 3, bfv", 3, "bfv-8192"),
        ("depth 3, nothing encrypted", 3, "unsafe-plaintext"),
    ):
        found = simulate("taiwan_peers_boost", f"boost.depth={depth}", f"crypto.profile={profile}")
        cpu = sum(found["cpu_seconds"].values())
        table.add_row(
            name,
            f"{found['seconds']['train']:.1f}",
            f"{found['seconds']['total']:.1f}",
            f"{cpu:.1f}",
            f"{sum(found['bytes_sent'].values()) / 1e6:.1f}",
            f"{found['auc_test']:.4f}",
            f"{found['auc_pooled_reference']:.4f}",
            f"{cpu / beside[depth]['cpu']:.1f}",
        )
    CONSOLE.print(table)
    CONSOLE.print("Total s holds reading, the comparison in the clear and the report as well.")


def xgboost(depth: int) -> dict[str, float]:
    """CPU seconds of XGBoost on the same rows, pooled, one thread."""
    import xgboost as library

    frame = pl.read_csv(Path(os.environ["FEDCREDIT_DATA"]) / "UCI_Credit_Card.csv.gz", infer_schema_length=None)
    label = frame["default.payment.next.month"].to_numpy()[:21_000]
    values = frame.drop("ID", "default.payment.next.month").to_numpy()[:21_000]
    started = time.process_time()
    data = library.DMatrix(values, label=label, nthread=1)
    settings = {"objective": "binary:logistic", "tree_method": "hist", "max_bin": 32, "max_depth": depth, "nthread": 1}
    library.train(settings, data, num_boost_round=20)
    return {"cpu": time.process_time() - started}


def price(seeds: Sequence[int]) -> None:
    """Accuracy with and without protection, on each public set."""
    table = Table(title=f"AUC on held-out rows, 20 trees as each set is configured, mean of {len(seeds)} seeds")
    for name in ("set", "rows", "bank alone", "federated, noise and caps", "no noise, no caps", "XGBoost", "price"):
        table.add_column(name, justify="left" if name == "set" else "right")
    for config in ("taiwan", "sba", "polish", "german"):
        safe: tuple[str, ...] = (
            "privacy.noise_rows=4",
            "boost.holder_thresholds=3",
            "boost.holder_bins=16",
            "privacy.gradient_bits=8",
        )
        safe += ("privacy.enforce=true",) if config != "german" else ()  # there the ledger refuses 20 trees
        found = [simulate(f"{config}_boost", f"run.seed={seed}", *safe)["boost"]["price"] for seed in seeds]
        mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        rows = simulate(f"{config}_boost")["rows_train"]
        table.add_row(
            config,
            f"{rows:,}",
            f"{mean['label_holder_alone']:.4f}",
            f"{mean['protected']:.4f}",
            f"{mean['unprotected']:.4f}",
            f"{mean['reference']:.4f}",
            f"{mean['unprotected'] - mean['protected']:+.4f}",
        )
    CONSOLE.print(table)


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--sizes", default="10000,30000,100000,300000")
    parser.add_argument("--trees", type=int, default=4)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--price", action="store_true")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--case", nargs=4, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--xgboost", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        sys.stdout.write(json.dumps(case(*chosen.case)) + "\n")
        return
    if chosen.xgboost:
        sys.stdout.write(json.dumps(xgboost(chosen.xgboost)) + "\n")
        return
    CONSOLE.print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}")
    if chosen.grid:
        grid([int(size) for size in chosen.sizes.split(",")], chosen.trees)
    if chosen.million:
        grid_one = in_process(["--case", "1000000", "30", "32", str(chosen.trees)])
        for name, cell in zip(
            ("rows", "F", "B", "hints s", "hints MB", "tree s", "tree CPU s"), _cells(grid_one), strict=False
        ):
            CONSOLE.print(f"{name}: {cell}")
        CONSOLE.print(f"peak GB of all parties together: {grid_one['peak_gb']:.2f}")
    if chosen.price:
        price([int(seed) for seed in chosen.seeds.split(",")])
    if not (chosen.grid or chosen.million or chosen.price):
        peers()


if __name__ == "__main__":
    main()

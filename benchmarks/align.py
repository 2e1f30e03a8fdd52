"""How long a blind alignment takes and how it grows, beside the scalar multiplications it cannot do without.

usage: python benchmarks/align.py [--parties 3] [--ids 10000 100000 210000] [--million]

All parties and the coordinator share one process; every size runs in a process of its own, so that its peak memory is
its own. Each party's list has the same length: a third of the label holder's are customers, the rest candidates for
decoys, nine of ten known to all. "bare" is what the library's scalar multiplications alone would take in a loop over
every core, measured just before and just after: parties² × ids, each list through each key. The result is compared with
sets of ids.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fedcredit.attack.blind_rehearsal import BlindRehearsal
from fedcredit.crypto.blind_group import from_uniform, times
from fedcredit.crypto.cores import cores
from fedcredit.types import PartyId

SAMPLE = 20_000
FIELDS = ("ids", "seconds", "cpu", "bare", "ratio", "per_id", "mb", "peak", "load")


def bare() -> tuple[float, float]:
    """Seconds and processor seconds of one scalar multiplication, over every core."""
    uniform = np.frombuffer(os.urandom(64 * SAMPLE), dtype=np.uint8).reshape(-1, 64)
    points, scalar = from_uniform(uniform), np.full(32, 7, dtype=np.uint8)
    started, used = time.perf_counter(), time.process_time()
    times(points, scalar.ctypes.data)
    return (time.perf_counter() - started) / SAMPLE, (time.process_time() - used) / SAMPLE


def measure(parties: int, ids: int) -> dict[str, float]:
    """One alignment."""
    register = [f"{number:018d}" for number in range(ids * 2)]
    known = register[: ids * 9 // 10]
    names = [PartyId(name) for name in ("bank", *(f"holder_{number}" for number in range(1, parties)))]
    rest = register[ids * 9 // 10 :]
    # Customers and candidates are spread over what all know and what nobody knows.
    customers = known[: ids * 3 // 10] + rest[: ids // 30]
    lists = {names[0]: customers}
    for number, name in enumerate(names[1:], start=1):
        own = rest[number * ids // 10 : (number + 1) * ids // 10]
        lists[name] = [*known, *own]
    rehearsal = BlindRehearsal(lists, register[: ids * 11 // 10], decoys=1.0, min_overlap=100, timeout_s=600.0)
    before = bare()
    network = rehearsal.network()
    started, used = time.perf_counter(), time.process_time()
    found = rehearsal.play(network)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    after = bare()
    common = set.intersection(*map(set, lists.values()))
    members = found[names[0]].members
    if members is None or {one for one, own in zip(found[names[0]].ids, members, strict=True) if own} != common:
        raise SystemExit("the common customers are not those of the sets")
    if any(index.ids != found[names[0]].ids for index in found.values()) or len(members) != 2 * len(common):
        raise SystemExit("the parties do not have one common order, half of it customers")
    entries = sum(len(own) for own in lists.values()) + round(rehearsal.oversample * len(customers))
    products = parties * entries
    floor, floor_cpu = ((one + other) / 2 * products for one, other in zip(before, after, strict=True))
    return {
        "ids": ids,
        "seconds": seconds,
        "cpu": cpu,
        "bare": floor,
        "ratio": cpu / floor_cpu,
        "per_id": 1e6 * cpu / ids,
        "mb": sum(network.bytes_sent.values()) / 1e6,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measures every size asked for, each in its own process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parties", type=int, default=3)
    parser.add_argument("--ids", type=int, nargs="*", default=[10_000, 100_000, 210_000])
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.parties, options.one)))
        return
    print(f"{options.parties} parties, {cores()} cores")
    heads = ("ids", "s", "cpu s", "bare s", "cpu/bare", "us/id", "MB", "peak MB", "load")
    print("{:>9} {:>7} {:>7} {:>7} {:>8} {:>6} {:>6} {:>8} {:>5}".format(*heads), flush=True)
    for ids in [*options.ids, *([1_000_000] if options.million else [])]:
        command = [sys.executable, __file__, "--parties", str(options.parties), "--one", str(ids)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = [done[name] for name in FIELDS]
        line = "{:>9,.0f} {:>7.1f} {:>7.1f} {:>7.1f} {:>8.2f} {:>6.0f} {:>6.0f} {:>8.0f} {:>5.1f}"
        print(line.format(*row), flush=True)


if __name__ == "__main__":
    main()

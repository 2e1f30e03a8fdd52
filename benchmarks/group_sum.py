"""How long an encrypted group sum takes, how it grows, and what a literal implementation of the same idea would take.

usage: python benchmarks/group_sum.py [--quick] [--profile rlwe-8192|bfv-8192|all]

Every case runs in a process of its own, so that its peak memory is its own. Beside rlwe-8192 stands a naive reference,
written out below: one sparse polynomial at a time, 64-bit lanes, a division at every product, one thread. It is
measured on a sample and scaled; "x" columns are naive time over product time. All results are compared with numpy.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_answerer, make_asker
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.packing import Field, pack, plan, unpack
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.profiles import GroupSumParameters, derive, sum_capacity

U64 = NDArray[np.uint64]
DEGREE = 8192
VECTORS = 5
FIRST = [(21_000, 12, 32), (210_000, 60, 16), (1_000_000, 30, 32)]
CASES = {
    "rlwe-8192": {
        "sizes of the decision record": FIRST,
        "growth in rows (30 x 32)": [(10_000, 30, 32), (100_000, 30, 32), (1_000_000, 30, 32)],
        "growth in features (210,000 rows, 16 bins)": [(210_000, 15, 16), (210_000, 30, 16), (210_000, 60, 16)],
    },
    "bfv-8192": {
        "sizes of the decision record": [(21_000, 12, 32)],
        "growth in rows (12 x 16)": [(21_000, 12, 16), (42_000, 12, 16), (84_000, 12, 16)],
        "growth in features (21,000 rows, 16 bins)": [(21_000, 6, 16), (21_000, 12, 16), (21_000, 24, 16)],
    },
}
QUICK = {"sizes": [(21_000, 12, 32), (100_000, 10, 16)]}
QUICK_BFV = {"sizes": [(5_000, 6, 16)]}


@njit(cache=True)
def naive_transform(x: U64, roots: U64, p: np.uint64) -> None:
    """Cooley-Tukey in place, a division at every product."""
    span, stage = x.size, 1
    while stage < x.size:
        span //= 2
        for i in range(stage):
            w = roots[stage + i]
            for j in range(2 * i * span, (2 * i + 1) * span):
                v = x[j + span] * w % p
                u = x[j]
                x[j], x[j + span] = (u + v) % p, (u + p - v) % p
        stage *= 2


@njit(cache=True)
def naive_hint(
    codes: NDArray[np.int32], feature: int, k: int, reference: U64, roots: U64, primes: U64, out: U64
) -> None:
    """Sum over blocks of a_j times w_kj for one bin, transformed order."""
    blocks, count, degree = reference.shape
    w = np.zeros((count, degree), np.uint64)
    for j in range(blocks):
        w[:] = 0
        for c in range(min(degree, codes.shape[0] - j * degree)):
            if codes[j * degree + c, feature] == k:
                w[:, degree - 1 - c] = 1
        for at in range(count):
            naive_transform(w[at], roots[at], primes[at])
            for x in range(degree):
                out[at, x] = (out[at, x] + w[at, x] * reference[j, at, x]) % primes[at]


@njit(cache=True)
def naive_sums(rows: U64, codes: NDArray[np.int32], bins: int, out: U64) -> None:
    """Adds every row to its bin of every feature, five residues each."""
    for i in range(codes.shape[0]):
        for f in range(codes.shape[1]):
            for at in range(rows.shape[1]):
                out[f * bins + codes[i, f], at] += rows[i, at]


@njit(cache=True)
def naive_dots(polynomials: U64, factor: U64, primes: U64, out: U64) -> None:
    """Coefficient N-1 of every polynomial times one factor, a division at every product."""
    for k in range(polynomials.shape[0]):
        for at in range(primes.size):
            for i in range(factor.shape[1]):
                out[k, at] = (out[k, at] + polynomials[k, at, i] * factor[at, i]) % primes[at]


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def naive(parameters: GroupSumParameters, codes: NDArray[np.int32], bins: int) -> dict[str, float]:
    """Seconds of the naive reference: hints and opening from samples of bins, encryption from a sample of blocks."""
    generator = np.random.default_rng(1)
    primes = np.array(parameters.primes, dtype=np.uint64)
    count, outputs = len(primes), codes.shape[1] * bins
    # Any table of factors below p costs the same: the time does not depend on the roots being roots.
    roots = generator.integers(0, primes[:, None], (count, DEGREE), dtype=np.uint64)
    reference = generator.integers(0, primes[:, None], (parameters.blocks, count, DEGREE), dtype=np.uint64)
    out = np.zeros((count, DEGREE), dtype=np.uint64)
    naive_hint(codes[:100], 0, 0, reference[:1], roots, primes, out)
    hint = min(seconds(partial(naive_hint, codes, 0, k, reference, roots, primes, out)) for k in range(2))
    blinding = seconds(
        lambda: [naive_transform(out[at], roots[at], primes[at]) for at in range(count) for _ in range(3)]
    )

    def encrypt_block() -> None:
        for at in range(count):
            x = reference[0, at] * out[at] % primes[at]
            naive_transform(x, roots[at], primes[at])
            (x + out[at] * np.uint64(3) % primes[at]) % primes[at]

    rows = generator.integers(0, primes, (parameters.rows, count), dtype=np.uint64)
    total = np.zeros((outputs, count), dtype=np.uint64)
    naive_sums(rows[:10], codes[:10], bins, total)
    sample = reference[np.arange(16) % parameters.blocks]
    dots = np.zeros((16, count), dtype=np.uint64)
    naive_dots(sample[:1], out, primes, dots)
    one_dot = seconds(lambda: naive_dots(sample, out, primes, dots)) / 16
    return {
        "hints": (hint + blinding) * outputs,
        "encrypt": seconds(encrypt_block) * parameters.blocks,
        "answer": seconds(lambda: naive_sums(rows, codes, bins, total)) + 2 * one_dot * outputs,
        "open": one_dot * outputs,
    }


def warm_up(profile: str) -> None:
    """Compiles, so that no measured call does."""
    parameters = derive(profile, 10, 5)
    asker = make_asker(parameters, bytes(32), SystemEntropy())
    grouping = Grouping(np.zeros((10, 1), dtype=np.int32), (1,))
    answerer = make_answerer(parameters, bytes(32), asker.setup(), grouping, SystemEntropy())
    asker.accept_hints("holder", answerer.hints(), 1)
    request, pending = asker.encrypt(np.ones(10, dtype=np.int64), bytes(32))
    pending.open("holder", answerer.answer(request))


def measure(profile: str, rows: int, features: int, bins: int) -> dict[str, float]:
    """One case: seconds, bytes and peak memory of the product, compared with numpy."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, bins, (rows, features)).astype(np.int32)
    codes[:, ::2] = np.where(generator.random((rows, (features + 1) // 2)) < 0.8, 0, codes[:, ::2])  # skewed
    grouping = Grouping(codes, (bins,) * features)
    made = plan([Field(127), Field(32)], rows, 1, sum_capacity(profile, rows).sum_bits)
    parameters = derive(profile, rows, made.value_bound)
    reference, entropy = entropy_bytes(), SystemEntropy()
    warm_up(profile)
    asker = make_asker(parameters, reference, entropy)
    start, cpu = time.perf_counter(), time.process_time()
    answerer = make_answerer(parameters, reference, asker.setup(), grouping, entropy)
    hints = answerer.hints()
    once, once_cpu = time.perf_counter() - start, time.process_time() - cpu
    accept = seconds(lambda: asker.accept_hints("holder", hints, grouping.outputs))
    columns = [generator.integers(-127, 128, rows), generator.integers(0, 33, rows)]
    want = [
        np.concatenate([np.bincount(codes[:, f], weights=c, minlength=bins) for f in range(features)]) for c in columns
    ]
    times: dict[str, list[float]] = {"encrypt": [], "answer": [], "open": []}
    sent = {"up": 0, "down": 0}
    sums = []
    vectors = pack(made, columns)
    for number in range(max(VECTORS, len(vectors))):
        t0 = time.perf_counter()
        request, pending = asker.encrypt(vectors[number % len(vectors)], entropy.take(32))
        t1 = time.perf_counter()
        answer = answerer.answer(request)
        t2 = time.perf_counter()
        sums.append(pending.open("holder", answer))
        t3 = time.perf_counter()
        for name, took in (("encrypt", t1 - t0), ("answer", t2 - t1), ("open", t3 - t2)):
            times[name].append(took)
        sent = {"up": len(request), "down": len(answer)}
    exact = all(np.array_equal(a, b) for a, b in zip(unpack(made, sums[: len(vectors)]), want, strict=True))
    result: dict[str, float] = {name: statistics.median(values) for name, values in times.items()}
    result |= {"exact": exact, "hints": once, "hints_cpu": once_cpu, "accept": accept, "hint_bytes": len(hints), **sent}
    result |= {"sum_bits": parameters.sum_bits, "vectors": len(vectors)}
    result["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if profile == "rlwe-8192":
        result |= {f"naive_{name}": took for name, took in naive(parameters, codes, bins).items()}
    return result


def entropy_bytes() -> bytes:
    """A reference seed; a run's comes from the nonces of all parties."""
    return SystemEntropy().take(32)


def show(profile: str, title: str, cases: list[tuple[int, int, int]]) -> bool:
    """Runs and prints one group of cases; whether all were exact."""
    print(f"\n{profile}: {title}")
    print(f"{'rows':>9} {'F x B':>8} | {'hints':>8} {'cpu':>7} {'MB':>6} {'x':>5} | {'encrypt':>8} {'x':>4} | ", end="")
    print(f"{'answer':>7} {'x':>4} | {'open':>7} {'x':>4} | {'up MB':>6} {'down kB':>7} | {'RSS MB':>6} exact")
    good = True
    for rows, features, bins in cases:
        command = [sys.executable, __file__, "--case", profile, str(rows), str(features), str(bins)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        r = json.loads(done.stdout)
        good &= bool(r["exact"])
        times = {
            name: f"{r['naive_' + name] / r[name]:.1f}" if "naive_" + name in r else "-"
            for name in ("hints", "encrypt", "answer", "open")
        }
        print(f"{rows:>9,} {features:>3} x {bins:>2} | {r['hints']:>7.2f}s {r['hints_cpu']:>6.2f}s ", end="")
        print(f"{r['hint_bytes'] / 1e6:>6.1f} {times['hints']:>5} | ", end="")
        print(f"{r['encrypt']:>7.3f}s {times['encrypt']:>4} | {r['answer']:>6.3f}s {times['answer']:>4} | ", end="")
        print(f"{r['open']:>6.3f}s {times['open']:>4} | {r['up'] / 1e6:>6.2f} {r['down'] / 1e3:>7.1f} | ", end="")
        print(f"{r['rss_mb']:>6.0f} {'yes' if r['exact'] else 'NO'}", flush=True)
    return good


def main() -> int:
    """Prints the tables; exit code 1 if a sum was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small sizes only, under a minute")
    parser.add_argument("--profile", choices=[*CASES, "all"], default="all")
    parser.add_argument("--case", nargs=4, metavar=("PROFILE", "ROWS", "FEATURES", "BINS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        profile, *sizes = chosen.case
        print(json.dumps(measure(profile, *map(int, sizes))))
        return 0
    good = True
    for profile, groups in CASES.items():
        if chosen.profile in (profile, "all"):
            picked = groups if not chosen.quick else QUICK if profile == "rlwe-8192" else QUICK_BFV
            for title, cases in picked.items():
                good &= show(profile, title, cases)
    print(
        '\ntimes: hints = once for an answerer, all cores; encrypt, answer, open = one vector; "x" = naive time / this'
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

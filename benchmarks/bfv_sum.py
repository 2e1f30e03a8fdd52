"""Time and size of a group sum under profile bfv-8192, beside the plain way of calling the same library.

    python benchmarks/bfv_sum.py [rows] [features] [bins] [vectors]

The plain way is one process, plaintexts built from text, coefficients read one by one, whole ciphertexts sent. Both
compute the same sums with the same ring, the same places and the same hiding steps; sums are compared with numpy.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from fedcredit.crypto.bfv_shard import BLOCK_ROWS, PLACES, output_places
from fedcredit.crypto.bfv_sum import BfvAnswerer, BfvAsker, Resources
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.profiles import BFV_8192, derive
from fedcredit.crypto.seal_format import DEGREE

VALUE_BOUND = 127 << 16  # two packed fields of a boosting round


class Clock:
    """Seconds by step, the best of several rounds."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.best[name] = min(self.best.get(name, np.inf), time.perf_counter() - start)


def plain_sums(codes: NDArray[np.int32], bins: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    columns = [np.bincount(column, weights=values, minlength=bins) for column in codes.T]
    return np.rint(np.concatenate(columns)).astype(np.int64)


def product(codes: NDArray[np.int32], bins: int, vectors: NDArray[np.int64], workers: int | None) -> dict[str, float]:
    rows, features = codes.shape
    parameters = derive(BFV_8192, rows, VALUE_BOUND)
    clock, size = Clock(), {}
    grouping = Grouping(codes, (bins,) * features)
    with clock.step("key"):
        asker = BfvAsker(parameters)
        asker.accept_hints("p", b"", grouping.outputs)
    with clock.step("once: answerer's polynomials"):
        answerer = BfvAnswerer(parameters, asker.setup(), grouping, SystemEntropy(), Resources(workers))
    with answerer:
        answerer.answer(asker.encrypt(vectors[0], os.urandom(32))[0])  # workers have finished their set-up
        for values in vectors:
            with clock.step("encrypt"):
                request, pending = asker.encrypt(values, os.urandom(32))
            with clock.step("answer"):
                answer = answerer.answer(request)
            with clock.step("open"):
                sums = pending.open("p", answer)
            if not np.array_equal(sums, plain_sums(codes, bins, values)):
                raise SystemExit("the sums are wrong")
            size = {"up, MB": len(request) / 1e6, "down, MB": len(answer) / 1e6}
    return clock.best | size


def text(exponents: NDArray[np.int64], values: Iterable[int]) -> str:
    return " + ".join(f"{v:X}x^{e}" if e else f"{v:X}" for v, e in zip(values, exponents.tolist(), strict=True))


class PlainWay:
    """The library as its examples call it: both sides of one group sum, in one process."""

    def __init__(self, codes: NDArray[np.int32], bins: int, bits: int) -> None:
        parms = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        parms.set_poly_modulus_degree(DEGREE)
        parms.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, [60, 60, 60]))
        parms.set_plain_modulus(seal.Modulus(1 << bits))
        self.context = seal.SEALContext(parms, True, seal.SEC_LEVEL_TYPE.TC128)
        keys, public = seal.KeyGenerator(self.context), seal.PublicKey()
        keys.create_public_key(public)
        self.own = seal.Encryptor(self.context, keys.secret_key())
        self.theirs = seal.Encryptor(self.context, public)
        self.opener = seal.Decryptor(self.context, keys.secret_key())
        self.evaluator = seal.Evaluator(self.context)
        self.file = str(Path(tempfile.mkdtemp()) / "object")
        self.modulus = 1 << bits
        self.outputs = codes.shape[1] * bins
        self.runs = -(-self.outputs // PLACES)
        row = codes.astype(np.int64) + np.arange(codes.shape[1]) * bins
        self.table = [self._block(row[at : at + BLOCK_ROWS]) for at in range(0, len(row), BLOCK_ROWS)]

    def _block(self, row: NDArray[np.int64]) -> list[object]:
        exponents = (row % PLACES) * BLOCK_ROWS + (BLOCK_ROWS - 1 - np.arange(len(row)))[:, None]
        polynomials: list[object] = []
        for run in range(self.runs):
            found = np.sort(exponents[row // PLACES == run])[::-1]
            plain = seal.Plaintext(text(found, [1] * len(found)))
            self.evaluator.transform_to_ntt_inplace(plain, self.context.first_parms_id())
            polynomials.append(plain)
        return polynomials

    def encrypt(self, values: NDArray[np.int64]) -> list[Path]:
        files = []
        for block in range(len(self.table)):
            part = values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS] % self.modulus
            order = np.flatnonzero(part)[::-1]
            files.append(Path(f"{self.file}{block}"))
            self.own.encrypt_symmetric(seal.Plaintext(text(order, part[order].tolist()))).save(str(files[-1]))
        return files

    def answer(self, request: list[Path]) -> list[Path]:
        totals = [seal.Ciphertext() for _ in range(self.runs)]
        term = seal.Ciphertext()
        for block, name in enumerate(request):
            sent = seal.Ciphertext()
            sent.load(self.context, str(name))
            self.evaluator.transform_to_ntt_inplace(sent)
            for total, plain in zip(totals, self.table[block], strict=True):
                self.evaluator.multiply_plain(sent, plain, term if block else total)
                if block:
                    self.evaluator.add_inplace(total, term)
        files = [Path(f"{self.file}a{run}") for run in range(self.runs)]
        for total, name in zip(totals, files, strict=True):
            self._conceal(total)
            total.save(str(name))
        return files

    def _conceal(self, total: Any) -> None:
        self.evaluator.transform_from_ntt_inplace(total)
        zero = seal.Ciphertext()
        self.theirs.encrypt_zero(zero)
        self.evaluator.add_inplace(total, zero)
        mask = (np.frombuffer(os.urandom(8 * DEGREE), np.uint64) % np.uint64(self.modulus)).astype(np.int64)
        mask[output_places()] = 0
        order = np.flatnonzero(mask)[::-1]
        self.evaluator.add_plain_inplace(total, seal.Plaintext(text(order, mask[order].tolist())))
        self.evaluator.mod_switch_to_next_inplace(total)

    def open(self, answer: list[Path]) -> NDArray[np.int64]:
        sums: list[int] = []
        for name in answer:
            got, opened = seal.Ciphertext(), seal.Plaintext()
            got.load(self.context, str(name))
            self.opener.decrypt(got, opened)
            count = opened.coeff_count()
            sums += [opened[p] if p < count else 0 for p in output_places().tolist()]
        half = self.modulus // 2
        return np.array([s - self.modulus if s >= half else s for s in sums[: self.outputs]])


def plain_way(codes: NDArray[np.int32], bins: int, vectors: NDArray[np.int64]) -> dict[str, float]:
    clock, size = Clock(), {}
    with clock.step("once: answerer's polynomials"):
        way = PlainWay(codes, bins, derive(BFV_8192, len(codes), VALUE_BOUND).sum_bits)
    for values in vectors:
        with clock.step("encrypt"):
            request = way.encrypt(values)
        with clock.step("answer"):
            answer = way.answer(request)
        with clock.step("open"):
            sums = way.open(answer)
        if not np.array_equal(sums, plain_sums(codes, bins, values)):
            raise SystemExit("the sums are wrong")
        up, down = (sum(file.stat().st_size for file in files) / 1e6 for files in (request, answer))
        size = {"up, MB": up, "down, MB": down}
    return clock.best | size


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    rows, features, bins, vectors = [*given, *(21_000, 12, 32, 5)[len(given) :]]
    generator = np.random.default_rng(1)
    codes = generator.integers(0, bins, (rows, features)).astype(np.int32)
    drawn = generator.integers(-VALUE_BOUND, VALUE_BOUND + 1, (vectors, rows))
    processors = os.cpu_count() or 1
    columns = {
        "plain way": plain_way(codes, bins, drawn),
        "1 process": product(codes, bins, drawn, 1),
        f"{processors} processes": product(codes, bins, drawn, processors),
    }
    print(f"n = {rows}, {features} x {bins}; seconds, best of {vectors} vectors; {processors} processors")
    print(f"{'':30s}" + "".join(f"{name:>14s}" for name in columns) + f"{'ratio':>9s}")
    *_, last = columns.values()
    for name in last:
        cells = [column.get(name, np.nan) for column in columns.values()]
        ratio = cells[0] / cells[-1]
        print(f"{name:30s}" + "".join(f"{cell:14.3f}" for cell in cells) + f"{ratio:9.1f}")


if __name__ == "__main__":
    main()

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


def plain_way(codes: NDArray[np.int32], bins: int, vectors: NDArray[np.int64]) -> dict[str, float]:
    rows, features = codes.shape
    outputs, bits = features * bins, derive(BFV_8192, rows, VALUE_BOUND).sum_bits
    clock = Clock()
    parms = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parms.set_poly_modulus_degree(DEGREE)
    parms.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, [60, 60, 60]))
    parms.set_plain_modulus(seal.Modulus(1 << bits))
    context = seal.SEALContext(parms, True, seal.SEC_LEVEL_TYPE.TC128)
    keys = seal.KeyGenerator(context)
    public = seal.PublicKey()
    keys.create_public_key(public)
    own, theirs = seal.Encryptor(context, keys.secret_key()), seal.Encryptor(context, public)
    opener, evaluator = seal.Decryptor(context, keys.secret_key()), seal.Evaluator(context)
    file = str(Path(tempfile.mkdtemp()) / "object")
    blocks, runs = -(-rows // BLOCK_ROWS), -(-outputs // PLACES)
    row = codes.astype(np.int64) + np.arange(features) * bins
    with clock.step("once: answerer's polynomials"):
        table: list[list[object]] = []
        for block in range(blocks):
            part = row[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            column = BLOCK_ROWS - 1 - np.arange(len(part))
            exponents = (part % PLACES) * BLOCK_ROWS + column[:, None]
            line = []
            for run in range(runs):
                found = np.sort(exponents[part // PLACES == run])[::-1]
                plain = seal.Plaintext(text(found, [1] * len(found)))
                evaluator.transform_to_ntt_inplace(plain, context.first_parms_id())
                line.append(plain)
            table.append(line)
    places = output_places()
    up = down = 0
    for values in vectors:
        up = down = 0
        with clock.step("encrypt"):
            files = []
            for block in range(blocks):
                part = values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS] % (1 << bits)
                order = np.flatnonzero(part)[::-1]
                own.encrypt_symmetric(seal.Plaintext(text(order, part[order].tolist()))).save(f"{file}{block}")
                files.append(f"{file}{block}")
                up += Path(files[-1]).stat().st_size
        with clock.step("answer"):
            totals = [seal.Ciphertext() for _ in range(runs)]
            term = seal.Ciphertext()
            for block, name in enumerate(files):
                sent = seal.Ciphertext()
                sent.load(context, name)
                evaluator.transform_to_ntt_inplace(sent)
                for total, plain in zip(totals, table[block], strict=True):
                    evaluator.multiply_plain(sent, plain, term if block else total)
                    if block:
                        evaluator.add_inplace(total, term)
            for run, total in enumerate(totals):
                evaluator.transform_from_ntt_inplace(total)
                zero = seal.Ciphertext()
                theirs.encrypt_zero(zero)
                evaluator.add_inplace(total, zero)
                mask = (np.frombuffer(os.urandom(8 * DEGREE), np.uint64) % np.uint64(1 << bits)).astype(np.int64)
                mask[places] = 0
                order = np.flatnonzero(mask)[::-1]
                evaluator.add_plain_inplace(total, seal.Plaintext(text(order, mask[order].tolist())))
                evaluator.mod_switch_to_next_inplace(total)
                total.save(f"{file}a{run}")
                down += Path(f"{file}a{run}").stat().st_size
        with clock.step("open"):
            sums = []
            for run in range(runs):
                got, opened = seal.Ciphertext(), seal.Plaintext()
                got.load(context, f"{file}a{run}")
                opener.decrypt(got, opened)
                count = opened.coeff_count()
                sums += [opened[p] if p < count else 0 for p in places.tolist()]
        signed = np.array([s - (1 << bits) if s >> (bits - 1) else s for s in sums[:outputs]])
        if not np.array_equal(signed, plain_sums(codes, bins, values)):
            raise SystemExit("the sums are wrong")
    return clock.best | {"up, MB": up / 1e6, "down, MB": down / 1e6}


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

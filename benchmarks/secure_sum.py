"""How long a secure sum takes, all work of all banks and the coordinator, and how that grows.

usage: python benchmarks/secure_sum.py [--quick] [--json FILE]

Everything runs in one process, bank after bank; messages are encoded and decoded. "plain" is adding the vectors
with numpy, "HE alone" encrypting, adding and decrypting the same words without masks, shares and boxes. Every total is
compared with plain adding.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fedcredit.crypto.secret import RunSecret
from fedcredit.crypto.secure_sum import CipherAdder, GroupCipher
from fedcredit.protocol.secure_sum.member import SumHouse, SumMember
from fedcredit.protocol.secure_sum.relay import SumRelay
from fedcredit.protocol.secure_sum.rules import SignedIdentity, SumRules
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import decode, encode

Profile = Literal["masked+he", "masked"]
BOUND = 1 << 30
CASES = {
    "target sizes": [(10, 100_000, 0), (98, 40, 0)],
    "growth in values, 10 banks": [(10, 1_000, 0), (10, 10_000, 0), (10, 100_000, 0), (10, 1_000_000, 0)],
    "growth in banks, 40 values": [(5, 40, 0), (10, 40, 0), (20, 40, 0), (50, 40, 0), (98, 40, 0), (200, 40, 0)],
    "growth in banks, 100,000 values": [(3, 100_000, 0), (10, 100_000, 0), (30, 100_000, 0)],
    "drop-outs, 10 banks": [(10, 100_000, 1), (10, 100_000, 4)],
}
QUICK = {"quick": [(5, 1_000, 0), (5, 1_000, 1)]}


@dataclass
class Row:
    case: str
    profile: Profile
    banks: int
    values: int
    gone: int
    start_s: float
    cpu_s: float
    wall_s: float
    bank_ms: float
    relay_ms: float
    up_kb: float
    down_kb: float
    plain_s: float
    he_alone_s: float


class Meter:
    """Bytes and processor seconds by side."""

    def __init__(self) -> None:
        self.up = self.down = 0
        self.relay = 0.0

    def crossed(self, message: Any, *, up: bool) -> Any:
        data = encode(message)
        if up:
            self.up += len(data)
        else:
            self.down += len(data)
        return decode(type(message), data)


def banks_of(count: int, profile: Profile) -> tuple[SumRules, dict[PartyId, SumMember], SumRelay]:
    names = tuple(PartyId(f"bank_{number:03d}") for number in range(count))
    rules = SumRules("ab" * 16, names, profile)
    keys = {name: SigningKey(os.urandom(32)) for name in names}
    public = {name: key.public for name, key in keys.items()}
    members = {
        name: SumMember(rules, SumHouse(name, RunSecret.fresh(), NoEscrow(), SignedIdentity(keys[name], public)))
        for name in names
    }
    return rules, members, SumRelay(rules)


def step(relay: SumRelay, meter: Meter) -> dict[PartyId, Any]:
    before = time.process_time()
    out = relay.advance()
    meter.relay += time.process_time() - before
    return {party: meter.crossed(message, up=False) for party, message in out.items()}


def told(relay: SumRelay, party: PartyId, message: Any, meter: Meter) -> None:
    sent = meter.crossed(message, up=True)
    before = time.process_time()
    relay.take(party, sent)
    meter.relay += time.process_time() - before


def measure(case: str, profile: Profile, count: int, length: int, gone: int) -> Row:
    _, members, relay = banks_of(count, profile)
    meter, began = Meter(), time.process_time()
    for name, member in members.items():
        told(relay, name, member.join(), meter)
    for name, message in step(relay, meter).items():
        told(relay, name, members[name].prepare(message), meter)
    for name, message in step(relay, meter).items():
        members[name].begin(message)
    start = time.process_time() - began
    rng = np.random.default_rng(0)
    values = {name: rng.integers(-BOUND, BOUND + 1, length) for name in members}
    once(relay, members, values, 0, Meter())  # contexts are made and caches filled
    meter, cpu, wall = Meter(), time.process_time(), time.perf_counter()
    once(relay, members, values, gone, meter)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Row(
        case=case,
        profile=profile,
        banks=count,
        values=length,
        gone=gone,
        start_s=start,
        cpu_s=cpu,
        wall_s=wall,
        bank_ms=1e3 * (cpu - meter.relay) / count,
        relay_ms=1e3 * meter.relay,
        up_kb=meter.up / count / 1e3,
        down_kb=meter.down / count / 1e3,
        plain_s=plain(list(values.values())),
        he_alone_s=he_alone(list(values.values())) if profile == "masked+he" else float("nan"),
    )


def once(
    relay: SumRelay, members: dict[PartyId, SumMember], values: dict[PartyId, Any], gone: int, meter: Meter
) -> None:
    late = relay.members[:gone]
    for name in relay.members:
        message = members[name].contribute("benchmark", values[name], BOUND)
        if name not in late:
            told(relay, name, message, meter)
    relay.missing(relay.waiting)
    for name, message in step(relay, meter).items():
        told(relay, name, members[name].unmask(message), meter)
    for name, message in step(relay, meter).items():
        total = members[name].open(message)
        if not np.array_equal(total.values, np.sum([values[one] for one in total.members], axis=0)):
            raise SystemExit("a total differs from plain adding")


def plain(values: list[Any]) -> float:
    repeats, began = 20, time.process_time()
    for _ in range(repeats):
        np.sum(values, axis=0)
    return (time.process_time() - began) / repeats


def he_alone(values: list[Any]) -> float:
    """The same words under the same cipher: each encrypts, one adds, each decrypts."""
    rules = SumRules("ab" * 16, tuple(PartyId(str(number)) for number in range(len(values))))
    shape = rules.shape(len(values[0]), BOUND, len(values))
    ciphers, adder = [GroupCipher(bytes(32)) for _ in values], CipherAdder()
    began = time.process_time()
    bodies = [
        cipher.encrypt(one.astype(np.uint64) & shape.mask, shape) for cipher, one in zip(ciphers, values, strict=True)
    ]
    total = adder.add(bodies, shape)
    for cipher in ciphers:
        cipher.decrypt(total, shape)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    profiles: tuple[Profile, ...] = ("masked+he", "masked")
    print(f"load {os.getloadavg()[0]:.1f}, values within 2^30\n")
    print("profile   banks   values gone | CPU s  wall s | bank ms relay ms | up kB  down kB | x plain  x HE | start s")
    for case, sizes in (QUICK if chosen.quick else CASES).items():
        print(case)
        for profile in profiles:
            for banks, length, gone in sizes:
                row = measure(case, profile, banks, length, gone)
                rows.append(row)
                print(
                    f"{profile:9} {banks:5} {length:8} {gone:4} | {row.cpu_s:5.2f} {row.wall_s:7.2f} |"
                    f" {row.bank_ms:7.1f} {row.relay_ms:8.1f} | {row.up_kb:6.0f} {row.down_kb:7.0f} |"
                    f" {row.cpu_s / row.plain_s:7.0f} {row.cpu_s / row.he_alone_s:5.1f} | {row.start_s:5.2f}",
                    flush=True,
                )
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

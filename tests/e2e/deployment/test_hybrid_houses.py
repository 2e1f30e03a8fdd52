"""Several banks and feature holders in houses of their own: what the simulation gives, and what a kill changes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import tomli_w

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.errors import SpecError, TransportError
from fedcredit.governance.audit import verify_directory
from fedcredit.runtime.exchange.client import ExchangeLink
from fedcredit.runtime.exchange.types import LinkSettings
from fedcredit.runtime.hybrid.networks import network_run, networks_of, roles_of
from fedcredit.runtime.session.files import public_of
from fedcredit.runtime.simulate import simulate
from fedcredit.spec.load import load_spec
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from tests.e2e.deployment.fault_bench import new_run
    from tests.e2e.deployment.house_bench import Houses
else:
    from fault_bench import new_run

BANKS = [PartyId(f"bank_0{number}") for number in (1, 2, 3)]
HOLDERS = [PartyId("tax_office"), PartyId("customs")]
SECTIONS: dict[str, dict[str, Any]] = {
    "partition": {"party": "bank", "by": "size", "banks": 3, "min_rows": 250, "seed": 4},
    "bin": {"prebins": 6, "max_bins": 4, "min_goods": 5, "min_bads": 5, "min_prebin_rows": 5},
    "network": {"timeout_s": 60.0},
}
STAGES = {BANKS[1]: "hybrid, in a sum", HOLDERS[0]: "hybrid, bins", COORDINATOR: "hybrid, in a sum"}
TREES: dict[str, dict[str, Any]] = {
    "run": {"model": "boost"},
    "boost": {"trees": 3, "depth": 2, "learning_rate": 0.3},
    "privacy": {"enforce": False, "noise_rows": 1.0},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def let_in(houses: Houses, run: RunId) -> None:
    """Opens every network of a run at the exchange, as the coordinator's daemon does."""
    for network in networks_of(run, roles_of(houses.loaded.spec)).values():
        houses.open_run(network.run, [party for party in network.roster if party != COORDINATOR])


def same_models(houses: Houses, run: RunId, simulated: Path) -> None:
    """Every file of every house's models is byte for byte that of the simulation."""
    compared = 0
    for bank in BANKS:
        for party in (bank, *HOLDERS):
            folder = houses.homes[party].runs / run / "banks" / bank
            for made in sorted((simulated / "banks" / bank / "model" / party).iterdir()):
                assert (folder / "model" / party / made.name).read_bytes() == made.read_bytes(), (
                    bank,
                    party,
                    made.name,
                )
                compared += 1
        own = houses.homes[bank].runs / run / "banks" / bank / "predictions.parquet"
        assert own.read_bytes() == (simulated / "banks" / bank / "predictions.parquet").read_bytes(), bank
    assert compared >= len(BANKS) * (1 + len(HOLDERS))


def charged(houses: Houses, run: RunId) -> dict[tuple[PartyId, PartyId], list[Any]]:
    """What every house's ledger has booked for a run, and its answers, by house and network."""
    found = {}
    for network in networks_of(run, roles_of(houses.loaded.spec)).values():
        for party in (*BANKS, *HOLDERS):
            with sqlite3.connect(houses.homes[party].state / "ledger.sqlite") as ledger:
                rows = [
                    *ledger.execute(
                        "SELECT counterparty, kind, feature, declared, spent FROM allowances WHERE run = ? "
                        "ORDER BY 1, 2, 3",
                        (network.run,),
                    ),
                    *ledger.execute(
                        "SELECT counterparty, costs, count(*) FROM answers WHERE run = ? GROUP BY 1, 2 ORDER BY 1, 2",
                        (network.run,),
                    ),
                ]
            found[party, network.name] = rows
    return found


@pytest.fixture(scope="module")
def town(
    found_houses: Callable[..., Houses], consortium: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Houses]:
    """A consortium of three banks and two holders whose exchange runs."""
    folder = tmp_path_factory.mktemp("hybrid_houses")
    config = consortium(folder / "records", rows=1500, sections=SECTIONS)
    made = found_houses(folder, config)
    made.start_exchange()
    yield made
    made.end()


@pytest.fixture(scope="module")
def simulated(town: Houses) -> Path:
    """The same run on one machine."""
    return simulate(town.loaded, town.folder / "simulated").out


@pytest.fixture(scope="module")
def undisturbed(town: Houses) -> tuple[RunId, dict[PartyId, Any]]:
    """A run that went to its end at once, and how each house ended."""
    run = new_run()
    let_in(town, run)
    town.start_all(run, town.order(run), report=True)
    return run, town.all_finished(run)


def test_houses_and_simulation_agree(
    town: Houses, simulated: Path, undisturbed: tuple[RunId, dict[PartyId, Any]]
) -> None:
    run, ended = undisturbed
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert all(not one.text for one in ended.values()), {p: one.text for p, one in ended.items()}
    same_models(town, run, simulated)
    for party in (*BANKS, *HOLDERS, COORDINATOR):
        verify_directory(town.homes[party].runs / run / "audit")
    own = json.loads((town.homes[BANKS[0]].runs / run / "summary.json").read_text())
    assert own["parts"] == ["banks/bank_01"]
    assert own["sums"] > 0
    assert (town.homes[BANKS[0]].runs / run / "banks" / BANKS[0] / "report.html").exists()
    assert not (town.homes[BANKS[0]].runs / run / "banks" / BANKS[1]).exists()
    assert load_spec(simulated / "spec.toml").spec.several_banks


def test_trees_of_houses_and_simulation_agree(
    found_houses: Callable[..., Houses], consortium: Callable[..., Path], tmp_path: Path
) -> None:
    config = consortium(tmp_path / "records", rows=1500, sections={**SECTIONS, **TREES})
    made = found_houses(tmp_path, config)
    try:
        made.start_exchange()
        run = new_run()
        let_in(made, run)
        made.start_all(run, made.order(run))
        ended = made.all_finished(run)
        assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
        simulated = simulate(made.loaded, tmp_path / "simulated").out
        same_models(made, run, simulated)
        again = new_run()
        let_in(made, again)
        order = made.order(again)
        held = made.hold(BANKS[2], again, order, "kind=secure_sum.turn:14")
        made.start_all(again, order, but=[BANKS[2]])
        held.wait()
        made.kill(BANKS[2], again)
        made.start(BANKS[2], again, order)
        ended = made.all_finished(again)
        assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
        same_models(made, again, simulated)
        assert charged(made, again) == charged(made, run)
    finally:
        made.end()


@pytest.mark.parametrize("party", [BANKS[1], HOLDERS[0], COORDINATOR])
def test_whoever_is_killed_and_comes_back_changes_nothing(
    town: Houses,
    simulated: Path,
    undisturbed: tuple[RunId, dict[PartyId, Any]],
    row: Callable[..., None],
    party: PartyId,
) -> None:
    run = new_run()
    let_in(town, run)
    order = town.order(run)
    place = "kind=secure_sum.turn:9" if party in BANKS else "bin:2"
    held = town.hold(party, run, order, "kind=secure_sum.survivors:12" if party == COORDINATOR else place)
    town.start_all(run, order, but=[party])
    held.wait()
    town.kill(party, run)
    began = time.monotonic()
    town.start(party, run, order)
    ended = town.all_finished(run)
    seconds = time.monotonic() - began
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert {one.attempts for one in ended.values()} == {2}
    same_models(town, run, simulated)
    assert charged(town, run) == charged(town, undisturbed[0])
    for one in (*BANKS, *HOLDERS, COORDINATOR):
        verify_directory(town.homes[one].runs / run / "audit")
    row(
        f"kill -9 of {party}, restart",
        STAGES[party],
        "all began again in a second attempt; charged once",
        seconds,
        "yes",
    )


@pytest.mark.parametrize("party", [BANKS[1], HOLDERS[0], COORDINATOR])
def test_whoever_does_not_come_back_is_named_by_all_others_in_time(
    found_houses: Callable[..., Houses],
    consortium: Callable[..., Path],
    tmp_path: Path,
    row: Callable[..., None],
    party: PartyId,
) -> None:
    config = consortium(tmp_path / "records", rows=1500, sections={**SECTIONS, "network": {"timeout_s": 6.0}})
    made = found_houses(tmp_path, config)
    try:
        made.start_exchange()
        run = new_run()
        let_in(made, run)
        order = made.order(run)
        place = "kind=secure_sum.turn:9" if party in BANKS else "bin:2"
        held = made.hold(party, run, order, "kind=secure_sum.survivors:12" if party == COORDINATOR else place)
        made.start_all(run, order, but=[party])
        held.wait()
        made.kill(party, run)
        died = time.monotonic()
        ended = made.all_finished(run)
        seconds = time.monotonic() - died
        assert seconds < 45.0
        for one, finished in ended.items():
            assert not finished.ok, one
            assert party in finished.text, (one, finished.code, finished.text)
        row(f"kill -9 of {party}, gone for good", STAGES[party], "all others ended and named it", seconds, "no model")
    finally:
        made.end()


def banks_of_their_own(config: Path, sections: Mapping[str, Mapping[str, Any]]) -> Path:
    """The configuration with three banks, each with a file of its own, in place of the one."""
    content = tomllib.loads(config.read_text("utf-8"))
    (bank,), holders = content["party"][:1], content["party"][1:]
    frame = pl.read_csv(config.parent / bank["source"])
    banks = []
    for place, name in enumerate(BANKS):
        frame.gather_every(len(BANKS), place).write_csv(config.parent / f"{name}.csv")
        banks.append({**bank, "name": str(name), "source": f"{name}.csv"})
    content["party"] = [*banks, *holders]
    for section, keys in sections.items():
        content[section] = {**content.get(section, {}), **keys}
    made = config.with_name("banks.toml")
    made.write_text(tomli_w.dumps(content), encoding="utf-8")
    return made


def test_production_where_holders_know_who_is_a_customer(
    found_houses: Callable[..., Houses], consortium: Callable[..., Path], tmp_path: Path
) -> None:
    known: dict[str, Any] = {"mode": "blind", "decoys": 0.0, "min_overlap": 10}
    plain = consortium(
        tmp_path / "records", rows=2400, sections={"bin": SECTIONS["bin"], "network": {"timeout_s": 60.0}}
    )
    sections: dict[str, dict[str, Any]] = {"run": {"mode": "production"}, "align": known, "privacy": {"enforce": True}}
    config = banks_of_their_own(plain, sections)
    made = found_houses(tmp_path, config, policy={"min_decoys": 0.0, "enforce": True})
    try:
        made.start_exchange()
        run = new_run()
        let_in(made, run)
        made.start_all(run, made.order(run))
        ended = made.all_finished(run)
        assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
        assert not any(one.shared for one in ended.values())
        for bank in BANKS:
            folder = made.homes[bank].runs / run / "banks" / bank
            assert pl.read_parquet(folder / "predictions.parquet").height > 100
            card = json.loads((folder / "model" / bank / "scorecard.json").read_text())
            assert {one["owner"] for one in card["features"]} > {bank}
        hidden = {"mode": "blind", "decoys": 1.0, "registry": "register.csv", "min_overlap": 10}
        with pytest.raises(SpecError, match="hides rows, which several banks"):
            load_spec(banks_of_their_own(plain, {**sections, "align": hidden}))
    finally:
        made.end()


def test_the_exchange_lets_no_bank_into_anothers_part(town: Houses) -> None:
    run = new_run()
    let_in(town, run)
    home = town.homes[BANKS[1]]
    keys = OwnKeys(b"\x07" * 32, home.sealing)
    peer = PeerKeys(public_of(b"\x08" * 32), home.roster.member(HOLDERS[0]).sealing)
    part = network_run(run, BANKS[0])
    for claimed, code in ((BANKS[1], "exchange.not-member"), (BANKS[0], "exchange.wrong-party")):
        settings = LinkSettings(
            address=home.roster.exchange,
            server_name="127.0.0.1",
            tls=home.tls,
            run=part,
            party=claimed,
            peers=(HOLDERS[0],),
            keys=LinkKeys(part, claimed, keys, {HOLDERS[0]: peer}),
            attempt=1,
            reconnect_s=5.0,
        )

        async def intrude(settings: LinkSettings = settings) -> None:
            link = ExchangeLink(settings)
            try:
                await link.open()
            finally:
                await link.close(flush=False)

        with pytest.raises(TransportError) as refused:
            asyncio.run(intrude())
        assert refused.value.code == code

"""Files of a boosted model: what they say, what they keep to themselves, and that scores come back out of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fedcredit.errors import DataError, IntegrityError
from fedcredit.kernels.prebin import PrebinRules, Prebins, fit_prebins
from fedcredit.kernels.tree_model import (
    BoostedTrees,
    Node,
    Split,
    Tree,
    TreeFeature,
    canonical_split,
    margins,
    pooled_bits,
)
from fedcredit.kernels.tree_shap import shapley
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import FeatureShape
from fedcredit.protocol.boost.feature_holder import HolderTrees, OwnSplit
from fedcredit.protocol.boost.label_holder import LedTrees
from fedcredit.protocol.boost.roles import BoostResult
from fedcredit.protocol.boost.slots import unpack_bits
from fedcredit.runtime.boost.files import Part
from fedcredit.runtime.boost.parts import holder_part, label_holder_part, model_digest, reasons, split_label
from fedcredit.runtime.boost.read import OwnBits, all_bits, boosted_trees, own_splits
from fedcredit.spec.model import BoostSection, PartySection, RunSection, RunSpec
from fedcredit.types import PartyId, Role

Table = dict[str, pl.Series]
BANK, TAX = PartyId("bank"), PartyId("tax_office")
STATES = ["TX", "CA", "NY", "FL", "WA", "OR", "NV", "UT", "ID", "MT"]


def table(rng: np.random.Generator, rows: int, names: Mapping[str, str]) -> Table:
    """Random columns: "number" has missing values, codes and values off the grid; "name" has rare categories."""
    columns: Table = {}
    for name, kind in names.items():
        if kind == "number":
            values = rng.lognormal(3, 2, rows)
            values[rng.random(rows) < 0.1] = -7.0
            values[rng.random(rows) < 0.005] = -9.0
            columns[name] = pl.Series(name, [None if rng.random() < 0.1 else float(value) for value in values])
        else:
            drawn = rng.choice(STATES, rows, p=np.array([20, 18, 15, 12, 10, 8, 7, 6, 3, 1]) / 100)
            columns[name] = pl.Series(name, [None if rng.random() < 0.05 else str(one) for one in drawn])
    return columns


def own_of(columns: Table) -> tuple[OwnFeature, ...]:
    found = []
    for place, (name, column) in enumerate(columns.items()):
        special = (-7.0, -9.0) if column.dtype == pl.Float64 else ()
        cuts = fit_prebins(column, np.ones(len(column), np.bool_), PrebinRules(8, 60, special))
        shape = FeatureShape(code=f"F{place + 1}", bins=cuts.bins, ordered=cuts.ordered, monotone="")
        found.append(OwnFeature(name, shape, cuts, cuts.apply(column)))
    return tuple(found)


def grow(rng: np.random.Generator, features: tuple[TreeFeature, ...], depth: int, trees: int) -> BoostedTrees:
    """Full trees with random splits: thresholds with any extras, subsets of categories."""
    splits: list[Split] = []

    def tree() -> Tree:
        nodes = []
        for place in range(2 ** (depth + 1) - 1):
            rows = 4096 >> (place + 1).bit_length()
            if place >= 2**depth - 1:
                nodes.append(Node(rows, float(rng.random()), 0.0, -1, -1, -1, float(rng.normal())))
                continue
            number = int(rng.integers(len(features)))
            one = features[number]
            left = list(range(int(rng.integers(1, max(2, one.ordered)))))
            left += [
                bin_ for bin_ in range(len(left) if not one.ordered else one.ordered, one.bins) if rng.random() < 0.4
            ]
            split = canonical_split(number, left, one.bins)
            if split not in splits:
                splits.append(split)
            gain = float(rng.random())
            nodes.append(Node(rows, float(rng.random()), gain, splits.index(split), 2 * place + 1, 2 * place + 2, 0.0))
        return Tree(tuple(nodes))

    grown = tuple(tree() for _ in range(trees))
    return BoostedTrees(float(rng.normal()), features, tuple(splits), grown)


@dataclass(frozen=True)
class Example:
    """A model of two parties, and what their roles would return."""

    tables: Mapping[str, Table]
    result: BoostResult
    held: HolderTrees
    spec: RunSpec
    bits: NDArray[np.bool_]

    @property
    def model(self) -> BoostedTrees:
        return self.result.trees.model

    def parts(self) -> dict[str, Part]:
        """As they are read back from JSON."""
        parts: dict[str, Part] = {
            BANK: label_holder_part(self.result, self.spec, BANK),
            TAX: holder_part(self.held, TAX),
        }
        return {party: json.loads(json.dumps(part, indent=2, allow_nan=False)) for party, part in parts.items()}


def example(seed: int = 0, depth: int = 3, trees: int = 4) -> Example:
    rng = np.random.default_rng(seed)
    tables: dict[str, Table] = {
        BANK: table(rng, 1500, {"income": "number", "branch": "name"}),
        TAX: table(rng, 1500, {"VAT paid": "number", "state": "name", "arrears": "number"}),
    }
    own = {party: own_of(columns) for party, columns in tables.items()}
    features = tuple(
        TreeFeature(party, one.shape.code, one.prebins.bins, one.prebins.ordered, foreign=party == TAX, thresholds=3)
        if party == TAX
        else TreeFeature(party, one.shape.code, one.prebins.bins, one.prebins.ordered)
        for party, columns in own.items()
        for one in columns
    )
    model = grow(rng, features, depth, trees)
    codes = np.array([one.codes for columns in own.values() for one in columns])
    bits = pooled_bits(model, codes)
    foreign = [split for split in model.splits if features[split.feature].foreign]
    shuffled = [foreign[place] for place in rng.permutation(len(foreign))]  # disclosed in another order, with gaps
    numbers = {split: 2 * at + 1 for at, split in enumerate(shuffled)}
    held = tuple(OwnSplit(2 * at + 1, split.feature - len(own[BANK]), split.left) for at, split in enumerate(shuffled))
    rows = np.zeros(1500, np.bool_)
    index = RowIndex(tuple(str(row) for row in range(1500)), np.arange(1500), rows)
    led = LedTrees(model, numbers, ~rows, margins(model, bits), bits, (), {TAX: 2 * len(held)}, 0)
    spec = RunSpec(
        run=RunSection(name="example", model="boost", mode="simulation"),
        party=(
            PartySection(name=BANK, role=Role.LABEL_HOLDER, source="bank.csv", label="y"),
            PartySection(name=TAX, role=Role.FEATURE_HOLDER, source="tax.csv"),
        ),
        boost=BoostSection(learning_rate=0.25),
    )
    return Example(
        tables, BoostResult(index, own[BANK], rows, led), HolderTrees(own[TAX], held, 2 * len(held)), spec, bits
    )


def everyones_bits(parts: Mapping[str, Part], tables: Mapping[str, Table], rows: int) -> dict[str, OwnBits]:
    return {party: own_splits(part).bits(tables[party], rows) for party, part in parts.items()}


@pytest.mark.parametrize("seed", range(5))
def test_scores_come_back_from_the_files(seed: int) -> None:
    made = example(seed, depth=4, trees=6)
    parts = made.parts()
    bits = all_bits(parts[BANK], everyones_bits(parts, made.tables, 1500))
    np.testing.assert_array_equal(bits, made.bits)
    read = boosted_trees(parts[BANK])
    assert margins(read, bits).tolist() == made.result.trees.margins.tolist()
    np.testing.assert_array_equal(shapley(read, bits)[0], shapley(made.model, made.bits)[0])


def test_rows_that_were_never_seen_find_their_bins() -> None:
    made = example(1)
    parts = made.parts()
    rng = np.random.default_rng(99)
    fresh: dict[str, Table] = {
        party: table(rng, 700, dict.fromkeys(columns, "number")) for party, columns in made.tables.items()
    }
    for party, name in ((BANK, "branch"), (TAX, "state")):
        fresh[party][name] = pl.Series(name, [str(one) for one in rng.choice([*STATES, "XX"], 700)])
    codes = [one.prebins.apply(fresh[BANK][one.name]) for one in made.result.own]
    codes += [one.prebins.apply(fresh[TAX][one.name]) for one in made.held.own]
    right = pooled_bits(made.model, np.array(codes))
    np.testing.assert_array_equal(all_bits(parts[BANK], everyones_bits(parts, fresh, 700)), right)


def test_packed_bits_are_those_of_the_paths() -> None:
    made = example(2)
    read = own_splits(made.parts()[TAX])
    packed = read.packed(made.tables[TAX], 1500)
    bits = unpack_bits(packed, (1500, len(read.numbers)), "paths")
    assert read.numbers == tuple(split.number for split in made.held.splits)
    np.testing.assert_array_equal(bits, read.bits(made.tables[TAX], 1500).bits)


def test_the_model_comes_back_but_for_the_meaning_of_others_splits() -> None:
    made = example(3)
    read = boosted_trees(made.parts()[BANK])
    hidden = tuple(
        Split(one.feature, ()) if made.model.features[one.feature].foreign else one for one in made.model.splits
    )
    assert read == replace(made.model, splits=hidden)


def test_a_label_holders_file_says_nothing_of_anothers_columns() -> None:
    made = example(4, depth=5, trees=8)
    part = made.parts()[BANK]
    text = json.dumps(part)
    for own in made.held.own:
        assert own.name not in text
        for edge in own.prebins.edges:
            assert repr(edge) not in text
    assert not any(f'"{name}"' in json.dumps(part["splits"]) for name in STATES)
    foreign = [one for one in part["splits"] if one["owner"] == TAX]
    assert {one["split"] for one in foreign} == {one.number for one in made.held.splits}
    assert all((one["left"], one["label"], one["derived"]) == (None, None, None) for one in foreign)
    assert all(one["name"] is one["cuts"] is one["reason"] is None for one in part["features"] if one["owner"] == TAX)
    mine = [one for one in part["splits"] if one["owner"] == BANK]
    assert all(one["left"] and one["label"].split(" ")[0] in {"income", "branch"} for one in mine)


def test_a_holders_file_says_nothing_of_trees() -> None:
    part = example(4).parts()[TAX]
    assert set(part) == {"party", "role", "features", "splits"}
    assert {key for one in part["features"] for key in one} == {"code", "name", "kind", "cuts", "reason"}
    assert {key for one in part["splits"] for key in one} == {"split", "code", "left", "label"}


def test_gains_and_counts_of_features() -> None:
    made = example(5)
    part = made.parts()[BANK]
    nodes = [node for tree in made.model.trees for node in tree.nodes if node.split >= 0]
    assert sum(one["splits"] for one in part["features"]) == len(nodes)
    assert sum(one["gain"] for one in part["features"]) == pytest.approx(sum(node.gain for node in nodes))
    assert (part["base"], part["learning_rate"]) == (made.model.base, 0.25)
    assert part["trees"][0]["nodes"][0].items() >= {"id": 0, "left": 1, "right": 2, "value": None}.items()
    assert part["trees"][0]["nodes"][-1].items() >= {"split": None, "gain": None}.items()


def test_a_split_that_follows_from_others_is_written_as_it_follows() -> None:
    made = example(6)
    place = next(at for at, one in enumerate(made.model.features) if one.owner == TAX and one.ordered >= 4)
    feature = made.model.features[place]
    low, high, odd = (
        canonical_split(place, left, feature.bins)
        for left in ([0], [0, 1, 2], [0, 1, feature.bins - 1])  # a threshold, another, and one about missing values
    )
    between = canonical_split(place, [0, *range(3, feature.bins)], feature.bins)
    leaf = Node(1, 1.0, 0.0, -1, -1, -1, 1.0)
    tree = Tree((Node(2, 1.0, 1.0, 3, 1, 2, 0.0), leaf, leaf))
    model = BoostedTrees(0.0, made.model.features, (low, odd, high, between), (tree,))
    led = replace(made.result.trees, model=model, disclosed={low: 4, odd: 0, high: 7})
    part = label_holder_part(replace(made.result, trees=led), made.spec, BANK)
    assert part["splits"][3]["split"] is None
    assert part["splits"][3]["derived"] == {"splits": [4, 7], "left": ["00", "11"]}
    codes = made.held.own[place - len(made.result.own)].codes
    bits = np.column_stack([np.isin(codes, one.left) for one in (low, odd, high)])
    found = all_bits(part, {BANK: OwnBits((), np.zeros((1500, 0), np.bool_)), TAX: OwnBits((4, 0, 7), bits)})
    np.testing.assert_array_equal(found[:, 3], np.isin(codes, between.left))
    for disclosed in ({low: 4, odd: 0}, {high: 7}):
        led = replace(made.result.trees, model=model, disclosed=disclosed)
        with pytest.raises(DataError, match=r"tax_office/F\d does not follow"):
            label_holder_part(replace(made.result, trees=led), made.spec, BANK)


NUMERIC = Prebins("numeric", edges=(1.0, 1200.0, 1e6), special=((-7.0, -8.0),), has_missing=True, as_missing=(-9.0,))
MIDDLE = Prebins("numeric", edges=(1.0, 2.5), as_missing=(-9.0,), fallback=1)
NAMES = Prebins("categorical", categories=(("TX",), ("CA", "NV"), ("NY",), ("FL",), ()), has_missing=True)


@pytest.mark.parametrize(
    ("prebins", "left", "label"),
    [
        (NUMERIC, (0, 1), "VAT paid <= 1200"),
        (NUMERIC, (0, 1, 4), "VAT paid <= 1200 or code -7, -8"),
        (NUMERIC, (0, 1, 4, 5), "VAT paid <= 1200, code -7, -8, missing or code -9"),
        (NUMERIC, (0, 1, 2, 5), "VAT paid <= 1e+06, missing or code -9"),
        (NUMERIC, (0, 1, 2, 3), "VAT paid any value"),
        (NUMERIC, (0, 2), "VAT paid <= 1 or (1200, 1e+06]"),
        (MIDDLE, (0,), "VAT paid <= 1"),
        (MIDDLE, (0, 1), "VAT paid <= 2.5, code -9 or missing"),
        (NAMES, (0,), "VAT paid in: TX"),
        (NAMES, (0, 1), "VAT paid in: TX, CA or NV"),
        (NAMES, (0, 1, 2), "VAT paid in: TX, CA, NV or NY"),
        (NAMES, (0, 1, 2, 3), "VAT paid in: TX, CA, NV and 2 more"),
        (NAMES, (0, 1, 2, 3, 5), "VAT paid in: TX, CA, NV and 2 more or missing"),
        (NAMES, (0, 4), "VAT paid in: TX or other"),
    ],
)
def test_labels(prebins: Prebins, left: tuple[int, ...], label: str) -> None:
    shape = FeatureShape(code="F1", bins=prebins.bins, ordered=prebins.ordered, monotone="")
    own = OwnFeature("VAT paid", shape, prebins, np.zeros(1, np.int32), not prebins.has_missing)
    assert split_label(own, left) == label


ADVERSE = "VAT paid: a high contribution is adverse, it raises the estimated risk of default."


@pytest.mark.parametrize(
    ("monotone", "text"),
    [
        ("", ADVERSE),
        (
            "decreasing",
            f"{ADVERSE} The risk falls as the value rises.",
        ),
    ],
)
def test_reason_texts(monotone: Any, text: str) -> None:
    made = example(7)
    first = made.held.own[0]
    shape = FeatureShape(code="F1", bins=first.prebins.bins, ordered=first.prebins.ordered, monotone=monotone)
    held = replace(made.held, own=(replace(first, shape=shape), *made.held.own[1:]))
    part = holder_part(held, TAX, {"state": "Where the enterprise has its seat."})
    assert part["features"][0]["reason"] == {"code": "tax_office/F1", "text": text}
    assert part["features"][1]["reason"] == {"code": "tax_office/F2", "text": "Where the enterprise has its seat."}


def test_reasons_are_the_highest_positive_contributions() -> None:
    features = [TreeFeature("bank" if place < 2 else "tax", f"F{place}", 2, 2) for place in range(4)]
    contributions = np.array([[0.1, -2.0, 0.3, 0.1], [-1.0, -1.0, 0.0, -3.0], [1.0, 4.0, 2.0, 3.0]])
    found = reasons(["a", "b", "c"], contributions, features, 3)
    assert found.columns == ["id", "rank", "owner", "feature", "contribution"]
    assert found.rows() == [
        ("a", 1, "tax", "F2", 0.3),
        ("a", 2, "bank", "F0", 0.1),
        ("a", 3, "tax", "F3", 0.1),
        ("c", 1, "bank", "F1", 4.0),
        ("c", 2, "tax", "F3", 3.0),
        ("c", 3, "tax", "F2", 2.0),
    ]
    assert reasons([], np.zeros((0, 4)), features).height == 0
    with pytest.raises(DataError, match="2 rows and 4 features"):
        reasons(["a", "b"], contributions, features)


def test_digest() -> None:
    made = example(8)
    parts: dict[str, Part] = {BANK: label_holder_part(made.result, made.spec, BANK), TAX: holder_part(made.held, TAX)}
    digest = model_digest(parts)
    assert digest == model_digest(dict(reversed(made.parts().items())))
    assert len(bytes.fromhex(digest)) == 32
    other = holder_part(made.held, TAX, {"state": "Another sentence."})
    assert model_digest({**parts, TAX: other}) != digest
    assert model_digest({BANK: parts[BANK]}) != digest


def broken(part: Part, path: list[Any], value: Any) -> Part:
    copy: Part = json.loads(json.dumps(part))
    at: Any = copy
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (["base"], "1", "Expected `float`"),
        (["surprise"], 1, "unknown field"),
        (["splits", 0, "number"], 1, "split 0 is of no feature"),
        (["splits", 0, "code"], "F99", "split 0 is of no feature"),
        (["splits", 0, "left"], [], "split 0"),
        (["trees", 0, "nodes", 0, "left"], 2, "tree 0 is no tree"),
        (["trees", 0, "nodes", 1, "left"], 0, "tree 0 is no tree"),
        (["trees", 1, "nodes", 0, "split"], 999, "tree 1 is no tree"),
        (["trees", 1, "nodes", 0, "split"], None, "tree 1 is no tree"),
        (["trees", 1, "nodes", 0, "value"], 0.5, "tree 1 is no tree"),
        (["trees", 1, "nodes"], [], "tree 1 is no tree"),
        (["trees", 1, "nodes", 3, "id"], 4, "tree 1 is no tree"),
        (["role"], "feature_holder", "Invalid enum value"),
    ],
)
def test_a_damaged_file_is_refused(path: list[Any], value: Any, text: str) -> None:
    part = example(9).parts()[BANK]
    with pytest.raises(IntegrityError, match=f"trees.json of bank: .*{text}"):
        boosted_trees(broken(part, path, value))


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (["splits", 0, "code"], "F99", "is of no feature of the file"),
        (["splits", 0, "left"], [1], "in no way that a split can"),
        (["splits", 0, "left"], [0, 99], "in no way that a split can"),
        (["features", 0, "cuts", "kind"], "text", "Invalid enum value"),
    ],
)
def test_a_damaged_file_of_a_holder_is_refused(path: list[Any], value: Any, text: str) -> None:
    part = example(9).parts()[TAX]
    with pytest.raises(IntegrityError, match=f"trees.json of tax_office: .*{text}"):
        own_splits(broken(part, path, value))


def test_bits_and_columns_that_do_not_fit() -> None:
    made = example(10)
    parts = made.parts()
    read = own_splits(parts[TAX])
    with pytest.raises(DataError, match="tax_office: column 'state' is missing"):
        read.bits({name: one for name, one in made.tables[TAX].items() if name != "state"}, 1500)
    with pytest.raises(DataError, match="has 1500 rows; the model needs all 9 rows"):
        read.bits(made.tables[TAX], 9)
    bits = everyones_bits(parts, made.tables, 1500)
    with pytest.raises(DataError, match="tax_office: no bits of its split"):
        all_bits(parts[BANK], {BANK: bits[BANK]})
    with pytest.raises(DataError, match="the same rows"):
        all_bits(parts[BANK], {**bits, TAX: OwnBits(bits[TAX].numbers, bits[TAX].bits[:5])})

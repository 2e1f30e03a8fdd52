"""A made-up run for the tests of the report.

The run is drawn with a fixed seed: 30,000 enterprises, a bank with six columns, a tax office with five and a utility
with three. Everything is computed by the kernels, so that figures, bins and predictions fit together.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fedcredit.kernels.logistic import fit_logistic, wald
from fedcredit.kernels.metrics import auc, brier, ece, gini, ks
from fedcredit.kernels.points import PointScale, integer_points, probability_of_bad, split_points, total_points
from fedcredit.kernels.stability import population_stability
from fedcredit.kernels.woe import information_value, weight_of_evidence

Ints = NDArray[np.int64]

ROWS, HELD_OUT = 30_000, 9_000
SCALE = PointScale(600.0, 20.0, 50.0)

# name, bins, strength of its effect on default, labels of its bins
FEATURES: dict[str, list[tuple[str, int, float, str]]] = {
    "bank": [
        ("account_turnover_12m", 6, -0.42, "{} to {} tCNY"),
        ("months_overdrawn", 5, 0.55, "{} to {}"),
        ("days_past_due_max", 5, 0.62, "{} to {} days"),
        ("loan_to_turnover", 6, 0.30, "{} to {} %"),
        ("collateral_share", 4, -0.18, "{} to {} %"),
        ("years_as_customer", 4, 0.01, "{} to {} years"),
    ],
    "tax_office": [
        ("vat_sales_trend", 7, -0.55, "{} to {} %"),
        ("tax_grade", 5, 0.60, "grade {}"),
        ("buyer_concentration", 6, 0.34, "{} to {} %"),
        ("tax_arrears_months", 4, 0.38, "{} to {}"),
        ("export_rebate_share", 4, -0.10, "{} to {} %"),
    ],
    "utility": [
        ("electricity_change_3m", 7, -0.50, "{} to {} %"),
        ("arrears_24m", 4, 0.35, "{} to {} CNY"),
        ("contracted_capacity", 5, -0.14, "{} to {} kVA"),
    ],
}
DROPPED: dict[str, list[dict[str, Any]]] = {
    "bank": [
        {"code": "bank-7", "name": "number_of_cards", "reason": "iv", "value": 0.011, "limit": 0.02, "against": None},
        {
            "code": "bank-8",
            "name": "account_turnover_6m",
            "reason": "correlation",
            "value": 0.934,
            "limit": 0.9,
            "against": "account_turnover_12m",
        },
    ],
    "tax_office": [
        {"code": "F6", "name": "registered_capital", "reason": "vif", "value": 14.2, "limit": 10.0, "against": None},
        {"code": "F7", "name": "industry_code", "reason": "bins", "value": 12, "limit": 9, "against": None},
    ],
    "utility": [
        {"code": "F4", "name": "meter_owner", "reason": "stability", "value": 0.312, "limit": 0.25, "against": None}
    ],
}
STEPS = """
align|feature_holder|align.index|order|Which rows are in the run, decoys included|twice the customers
bin|label_holder|group_sum.answer|masked|Goods and bads in each fine bin of each feature|equations, in the ledger
bin|feature_holder|bin.merged|woe_units|Weight of evidence of each merged bin of its features|bins, in the ledger
scorecard|label_holder|score.total|total|One total of integer points for each row|about ten bits a row
scorecard|coordinator|score.partial|ciphertext|That a holder has sent its part, and its size|no key: it stays closed
"""
LEDGER = {
    "tax_office": {
        "counterparty": "bank",
        "equations": {"largest": 46, "cap": 420, "features": 7},
        "row_bits": {"spent": 9.8, "cap": 10.5},
        "bins_returned": {"spent": 26, "cap": 466},
    },
    "utility": {
        "counterparty": "bank",
        "equations": {"largest": 46, "cap": 420, "features": 4},
        "row_bits": {"spent": 9.8, "cap": 20},
        "bins_returned": {"spent": 16, "cap": 466},
    },
}

ENCRYPTION = {
    "scheme": "Hinted ring-LWE group sums",
    "profile": "rlwe-8192",
    "poly_degree": 8192,
    "plain_modulus_bits": 55,
    "security_bits": 128,
    "enabled": True,
}


def _columns(rng: np.random.Generator) -> tuple[dict[tuple[str, str], Ints], Ints, Ints]:
    """Bin of each row and feature, labels, and which rows are held out (1)."""
    held_out = (np.arange(ROWS) >= ROWS - HELD_OUT).astype(np.int64)
    common = rng.normal(size=ROWS)
    codes, risk = {}, np.full(ROWS, -1.62)
    for owner, features in FEATURES.items():
        for name, bins, strength, _ in features:
            latent = 0.45 * np.sign(strength) * common + 0.9 * rng.normal(size=ROWS)
            cuts = np.quantile(latent, np.linspace(0, 1, bins + 1)[1:-1] ** 1.2)
            moved = latent + (0.42 * held_out if name == "electricity_change_3m" else 0.0)
            codes[owner, name] = np.searchsorted(cuts, moved).astype(np.int64)
            risk = risk + 0.62 * strength * latent
    return codes, (rng.random(ROWS) < 1 / (1 + np.exp(-risk))).astype(np.int64), held_out


def _measures(bad: Ints, risk: NDArray[np.float64], probability: NDArray[np.float64] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"auc": auc(bad, risk), "ks": ks(bad, risk), "gini": gini(bad, risk)}
    if probability is not None:
        found |= {"brier": brier(bad, probability), "ece": ece(bad, probability)}
    return found


def _head(owner: str, name: str) -> dict[str, Any]:
    order = [part[0] for part in FEATURES[owner]].index(name)
    code = f"{'bank-' if owner == 'bank' else 'F'}{order + 1}"
    return {"owner": owner, "code": code, "name": name, "kind": "numeric"}


def _label(owner: str, name: str, place: int) -> str:
    text = next(part[3] for part in FEATURES[owner] if part[0] == name)
    return text.format(20 * place, 20 * (place + 1))


def make_run(run: Path) -> Path:
    """A finished run directory with realistic numbers."""
    codes, bad, held_out = _columns(np.random.default_rng(20_250_101))
    train, test = held_out == 0, held_out == 1
    keys = list(codes)
    counts = {
        key: (np.bincount(column[train & (bad == 0)]), np.bincount(column[train & (bad == 1)]))
        for key, column in codes.items()
    }
    woe = {key: 0.05 * np.rint(weight_of_evidence(*pair, 0.5) / 0.05) for key, pair in counts.items()}
    design = np.column_stack([woe[key][codes[key]] for key in keys])
    fit = fit_logistic(design[train], 1 - bad[train])
    proof = wald(fit)
    points = integer_points(split_points(SCALE, fit.intercept, fit.coefficients, [woe[key] for key in keys]))
    score = np.asarray(total_points(points, [codes[key][test] for key in keys]), dtype=np.int64)
    probability = np.asarray(probability_of_bad(SCALE, score), dtype=np.float64)
    own = [place for place, key in enumerate(keys) if key[0] == "bank"]
    alone = fit_logistic(design[train][:, own], 1 - bad[train])
    score_alone = alone.intercept + design[test][:, own] @ alone.coefficients
    features = []
    for place, (owner, name) in enumerate(keys):
        goods, bads = counts[owner, name]
        columns = zip(goods, bads, woe[owner, name], points.bins[place], strict=True)
        features.append(
            {
                **_head(owner, name),
                "iv": information_value(goods, bads, 0.5),
                "stability": population_stability(
                    np.bincount(codes[owner, name][train]), np.bincount(codes[owner, name][test])
                ),
                "coefficient": float(fit.coefficients[place]),
                "standard_error": float(proof.standard_errors[place + 1]),
                "p_value": float(proof.p[place + 1]),
                "sign_ok": bool(fit.coefficients[place] > 0),
                "bins": [
                    {"goods": int(good), "bads": int(ill), "woe": float(weight), "points": int(given)}
                    | {"label": _label(owner, name, place_of)}
                    for place_of, (good, ill, weight, given) in enumerate(columns)
                ],
            }
        )
    logit = np.log(probability / (1 - probability))
    slope = fit_logistic(logit[:, None], bad[test])
    together = _measures(bad[test], -score.astype(np.float64), probability)
    _write_models(run, features, float(fit.intercept), points.base)
    calibration = {"intercept": slope.intercept, "slope": float(slope.coefficients[0]), "true_bad_rate": None}
    _write_summary(run, [together, _measures(bad[test], -score_alone, None)], int(bad[test].sum()), calibration)
    _write_predictions(
        run, {"label": bad[test], "score": score, "probability": probability, "score_alone": score_alone}
    )
    _write_evidence(run)
    return run


def _write_predictions(run: Path, columns: dict[str, NDArray[Any]]) -> None:
    ids = [f"E{row:05d}" for row in range(HELD_OUT)]
    pl.DataFrame({"id": ids, **columns}).write_parquet(run / "predictions.parquet")


def _hidden(feature: dict[str, Any], reader: str) -> dict[str, Any]:
    """A feature as the file of ``reader`` has it."""
    shown: dict[str, Any] = json.loads(json.dumps(feature))
    if reader == "bank" and shown["owner"] != "bank":
        shown |= {"name": None, "kind": None}
        for part in shown["bins"]:
            part["label"] = None
    if reader != "bank":
        shown |= dict.fromkeys(("iv", "stability", "coefficient", "standard_error", "p_value", "sign_ok"))
        for part in shown["bins"]:
            part |= {"goods": None, "bads": None}
    return shown


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_models(run: Path, features: list[dict[str, Any]], intercept: float, base: int) -> None:
    scale = {"base_score": 600.0, "base_odds": 20.0, "pdo": 50.0}
    for party in FEATURES:
        bank = party == "bank"
        owners = list(FEATURES) if bank else [party]
        dropped = [{"owner": owner} | row for owner in owners for row in DROPPED[owner]]
        if bank:
            dropped = [row | ({} if row["owner"] == "bank" else {"name": None}) for row in dropped]
        card: dict[str, Any] = {
            "party": party,
            "role": "label_holder" if bank else "feature_holder",
            "scale": scale,
            "features": [_hidden(feature, party) for feature in features if feature["owner"] in owners],
            "dropped": dropped,
        }
        card |= {"base_points": base, "intercept": intercept} if bank else {}
        _write(run / "model" / party / "scorecard.json", card)


def _write_summary(run: Path, measures: list[dict[str, Any]], bads: int, calibration: dict[str, Any]) -> None:
    together, alone = measures
    reference = {name: value + 0.0004 for name, value in together.items()}
    bytes_sent = {"bank": 21_400_000, "tax_office": 58_300_000, "utility": 31_900_000, "coordinator": 4_100_000}
    content = {
        "run_id": hashlib.sha256(b"run").hexdigest()[:32],
        "spec_digest": hashlib.sha256(b"spec").hexdigest(),
        "name": "district-scorecard",
        "model": "scorecard",
        "mode": "simulation",
        "protocol": "scorecard",
        "bank": "bank",
        "parties": list(FEATURES),
        "entropy": "system",
        "rows_train": ROWS - HELD_OUT,
        "rows_test": HELD_OUT,
        "positives_test": bads,
        "auc_test": together["auc"],
        "ks_test": together["ks"],
        "brier_test": together["brier"],
        "ece_test": together["ece"],
        "auc_label_holder_alone": alone["auc"],
        "auc_pooled_plaintext": together["auc"],
        "auc_pooled_reference": reference["auc"],
        "metrics": {"alone": alone, "federated": together, "pooled_plaintext": together, "reference": reference},
        "encryption": ENCRYPTION,
        "fit": {"method": "one-step", "totals": 2, "gradients": 1, "ridge": 1.0},
        "calibration": calibration,
        "disclosure": {
            "equations_per_feature": 46,
            "cap": 420,
            "bits_per_row": 9.8,
            "bins_returned": 42,
            "noise_rows": 0.0,
            "statistical_leak_log2": -43.2,
        },
        "ledger_scope": "this run",
        "seconds": {"align": 1.1, "bin": 18.4, "train": 22.9, "score": 3.7, "total": 46.1},
        "cpu_seconds": {"bank": 19.3, "tax_office": 24.8, "utility": 15.2, "coordinator": 1.4},
        "bytes_sent": bytes_sent,
        "messages": 164,
        "max_rss_mb": 611.0,
        "versions": {"fedcredit": "0.1.0", "numpy": "2.2.0", "python": "3.11.9", "tenseal": "0.3.16"},
        "git": "9f1c2ab5d0e84f6c",
    }
    _write(run / "summary.json", content)


def _write_evidence(run: Path) -> None:
    keys = ("protocol", "receiver", "message", "field", "learns", "bound")
    steps = [dict(zip(keys, line.split("|"), strict=True)) for line in STEPS.strip().splitlines()]
    _write(run / "leakage.json", {"steps": steps, "ledger": LEDGER, "statistical_leak_log2": -43.2})
    lines = []
    for holder, large in (("tax_office", 1_420_000), ("utility", 770_000)):
        for sequence in range(41):
            out = {"sender": "bank", "recipient": holder, "type": "group_sum.request", "bytes": 260_000}
            back = {"sender": holder, "recipient": "bank", "type": "group_sum.answer", "bytes": large}
            lines += [json.dumps({**message, "stage": "bin", "sequence": sequence}) for message in (out, back)]
    (run / "transcript.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (run / "spec.toml").write_text("[privacy]\nenforce = true\nnoise_rows = 0.0\n", encoding="utf-8")
    heads = {party: hashlib.sha256(party.encode()).hexdigest() for party in (*FEATURES, "coordinator")}
    _write(run / "audit" / "heads.json", heads)


def _cuts(**given: Any) -> dict[str, Any]:
    plain = {"kind": "numeric", "edges": [], "categories": [], "special": [], "has_missing": False, "as_missing": []}
    return plain | {"fallback": 0} | given


VAT = _cuts(edges=[900.0, 2000.0], has_missing=True)
SECTORS = _cuts(kind="categorical", categories=[["Textile"], ["Mining", "Farming"], ["Retail", "Steel"], ["Tea"]])
TREES: dict[str, list[dict[str, Any]]] = {
    "bank": [
        {"code": "F1", "name": "turnover", "cuts": _cuts(edges=[60.0, 120.0, 180.0]), "gain": 60.0, "splits": 3},
        {"code": "F2", "name": "overdrawn", "cuts": _cuts(edges=[1.0, 4.0]), "gain": 0.0, "splits": 0},
    ],
    "tax_office": [
        {"code": "F1", "name": "vat_paid", "cuts": VAT, "gain": 10.0, "splits": 1, "text": "High arrears of VAT."},
        {"code": "F2", "name": "sector", "cuts": SECTORS, "gain": 30.0, "splits": 2},
    ],
    "utility": [{"code": "F1", "name": "arrears_24m", "cuts": _cuts(edges=[10.0, 50.0]), "gain": 0.0, "splits": 0}],
}
HELD_SPLITS = [
    {"split": 0, "code": "F2", "left": [0, 1, 2], "label": "sector in: Textile, Mining, Farming and 2 more"},
    {"split": 1, "code": "F1", "left": [0, 3], "label": "vat_paid <= 900 or missing"},
    {"split": 2, "code": "F2", "left": [0, 1], "label": "sector in: Textile, Mining, Farming"},
]


def _reason(owner: str, one: dict[str, Any]) -> dict[str, str]:
    text = f"{one['name']}: a high contribution is adverse."
    return {"code": f"{owner}/{one['code']}", "text": one.get("text", text)}


def _tree_feature(owner: str, one: dict[str, Any]) -> dict[str, Any]:
    cuts, own = one["cuts"], owner == "bank"
    ordered = len(cuts["edges"]) + 1 if cuts["kind"] == "numeric" else 0
    head = {"owner": owner, "code": one["code"], "name": one["name"] if own else None, "kind": cuts["kind"]}
    size = {"bins": (ordered or len(cuts["categories"])) + cuts["has_missing"], "ordered": ordered, "monotone": ""}
    used = {"thresholds": None if own else 3, "gain": one["gain"], "splits": one["splits"]}
    return head | size | used | {"cuts": cuts if own else None, "reason": _reason(owner, one) if own else None}


def _tree_split(number: int, owner: str, code: str, **how: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("split", "derived", "left", "label"))
    return {"number": number, "owner": owner, "code": code} | unknown | how


def _inner(rows: int, gain: float, split: int, left: int, right: int) -> dict[str, Any]:
    return {"rows": rows, "weight": 0.1503571 * rows, "gain": gain, "split": split, "left": left, "right": right}


def _tree(*nodes: dict[str, Any] | tuple[int, float]) -> dict[str, Any]:
    """Inner nodes as they are; leaves as rows and value."""
    found: list[dict[str, Any]] = []
    for place, node in enumerate(nodes):
        if isinstance(node, dict):
            found.append({"id": place, "value": None} | node)
        else:
            leaf = {"id": place, "rows": node[0], "weight": 0.15 * node[0], "value": node[1]}
            found.append(leaf | dict.fromkeys(("gain", "split", "left", "right")))
    return {"nodes": found}


def _write_trees(run: Path) -> None:
    splits = [
        _tree_split(0, "bank", "F1", left=[0, 1], label="turnover <= 120"),
        _tree_split(1, "tax_office", "F2", split=0),
        _tree_split(2, "bank", "F1", left=[0], label="turnover <= 60"),
        _tree_split(3, "tax_office", "F2", derived={"splits": [0, 2], "left": ["01", "11"]}),
        _tree_split(4, "tax_office", "F1", split=1),
    ]
    first = (_inner(1400, 40.0, 0, 1, 2), _inner(800, 20.0, 1, 3, 4), _inner(600, 15.0, 2, 5, 6))
    trees = [
        _tree(*first, (500, 0.25), (300, 0.05), (350, -0.1), (250, -0.3)),
        _tree(_inner(1400, 10.0, 3, 1, 2), (900, 0.1), (500, -0.1)),
        _tree(_inner(1400, 10.0, 4, 1, 2), _inner(700, 5.0, 0, 3, 4), (700, -0.1), (350, 0.2), (350, 0.1)),
    ]
    features = [_tree_feature(owner, one) for owner, held in TREES.items() for one in held]
    label = {"party": "bank", "role": "label_holder", "base": -1.1, "learning_rate": 0.3, "features": features}
    _write(run / "model" / "bank" / "trees.json", label | {"splits": splits, "trees": trees})
    for party in ("tax_office", "utility"):
        held = [
            {"code": one["code"], "name": one["name"], "kind": one["cuts"]["kind"], "cuts": one["cuts"]}
            | {"reason": _reason(party, one)}
            for one in TREES[party]
        ]
        own = {"party": party, "role": "feature_holder", "features": held}
        _write(run / "model" / party / "trees.json", own | {"splits": HELD_SPLITS if party == "tax_office" else []})


def _write_reasons(run: Path, ids: list[str], risk: NDArray[np.float64]) -> None:
    """Reasons that rise with the risk; the safest row has none."""
    weights = {("bank", "F1"): 0.5, ("tax_office", "F2"): 0.3, ("tax_office", "F1"): 0.1}
    rows: list[tuple[str, int, str, str, float]] = []
    for place, name in enumerate(ids):
        shifts = {
            pair: weight * float(risk[place]) + 0.2 * ((place % 7) - 3) * weight for pair, weight in weights.items()
        }
        ranked = sorted((pair for pair in shifts if shifts[pair] > 0), key=lambda pair: -shifts[pair])
        rows += [(name, rank, *pair, shifts[pair]) for rank, pair in enumerate(ranked, start=1)]
    columns = ["id", "rank", "owner", "feature", "contribution"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(run / "explanations.parquet")


def make_trees(run: Path) -> Path:
    """A finished run of boosted trees: three kept of five grown, from two of three parties."""
    rng = np.random.default_rng(3)
    risk = rng.normal(size=600)
    probability = 1 / (1 + np.exp(1.2 - risk))
    bad = (rng.random(600) < probability).astype(np.int64)
    score, alone = np.rint(500 - 50 * risk).astype(np.int64), np.rint(500 - 30 * risk + 40 * rng.normal(size=600))
    together, ids = _measures(bad, probability, probability), [f"T{row:04d}" for row in range(600)]
    given = {"id": ids, "label": bad, "score": score, "probability": probability, "sample_probability": probability}
    run.mkdir(parents=True)
    pl.DataFrame({**given, "score_alone": alone}).write_parquet(run / "predictions.parquet")
    _write_reasons(run, ids, risk)
    _write_trees(run)
    _write_summary(run, [together, _measures(bad, -alone, None)], int(bad.sum()), {"intercept": 0.0, "slope": 1.0})
    _write_evidence(run)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    curve = zip((0.700, 0.712, 0.720, 0.723, 0.725), (0.690, 0.700, 0.706, 0.705, 0.704), strict=True)
    history = [
        {"tree": number, "train_auc": train, "validation_auc": checked}
        for number, (train, checked) in enumerate(curve, start=1)
    ]
    bare = together["auc"] + 0.0051
    summary["metrics"]["unprotected"] = {"auc": bare}
    summary |= {
        "model": "boost",
        "rows_train": 1400,
        "rows_test": 600,
        "auc_pooled_unprotected": bare,
        "model_equals_pooled_plaintext": True,
        "boost": {
            "trees": 3,
            "trees_grown": 5,
            "depth": 2,
            "growth": "depth",
            "max_leaves": 4,
            "leaves": 9,
            "gradient_bits": 8,
            "bins": 8,
            "holder_bins": 4,
            "stopped_early": True,
            "bytes_per_tree": 41_000,
            "history": history,
            "thresholds_disclosed": {"tax_office": 3, "utility": 0},
        },
    }
    _write(run / "summary.json", summary)
    leakage = json.loads((run / "leakage.json").read_text(encoding="utf-8"))
    leakage["ledger"]["tax_office"]["feature_bits"] = {"largest": 2, "cap": 3}
    _write(run / "leakage.json", leakage)
    spec = "[privacy]\nenforce = true\nnoise_rows = 4.0\n[boost]\nholder_thresholds = 3\n"
    (run / "spec.toml").write_text(spec, encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, not to be changed."""
    return make_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of boosted trees, not to be changed."""
    return make_trees(tmp_path_factory.mktemp("grown") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="session")
def names() -> Callable[..., list[str]]:
    """Column names of the given owners, those left out included."""

    def of(*owners: str) -> list[str]:
        kept = [part[0] for owner in owners for part in FEATURES[owner]]
        return kept + [row["name"] for owner in owners for row in DROPPED[owner]]

    return of

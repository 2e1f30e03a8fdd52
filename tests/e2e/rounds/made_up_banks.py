"""Made-up banks of unlike size and taste, and the configuration of a run of averaging over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tomli_w

Sections = Mapping[str, Mapping[str, object]]


def write_banks(folder: Path, count: int = 4, rows: int = 200, sections: Sections | None = None) -> Path:
    """Writes each bank's CSV and the configuration.

    Args:
        folder: Where.
        count: Banks.
        rows: Of the first bank; each further one has a few more.
        sections: Keys that replace those of the configuration.
    """
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for place in range(1, count + 1):
        n = rows + 10 * (place % 17)
        latent = rng.normal(size=n) + 0.1 * (place % 5)
        bad = (rng.random(n) < 1 / (1 + np.exp(1.0 - 1.5 * latent))).astype(int)
        bad[:2] = [0, 1]
        income = np.exp(3 - 0.5 * latent + rng.normal(size=n)).round(3)
        frame = pl.DataFrame(
            {
                "id": [f"b{place}-{number}" for number in range(n)],
                "bad": bad,
                "income": pl.Series([None if one < 2 else float(one) for one in income]),
                "delay": (latent + rng.normal(size=n)).round(3),
                "sector": [f"s{one}" for one in np.digitize(latent + rng.normal(size=n), [-1.0, 0.0, 1.0])],
            }
        )
        name = f"bank_{place:02d}"
        frame.write_csv(folder / f"{name}.csv")
        listed.append({"name": name, "role": "label_holder", "label": "bad", "source": f"{name}.csv"})
    content: dict[str, Any] = {
        "run": {"name": "made-up-banks", "mode": "simulation", "model": "fedavg", "seed": 3},
        "split": {"test_fraction": 0.3, "seed": 1},
        "align": {"mode": "plain"},
        "party": listed,
        "fedavg": {"network": "logistic", "rounds": 3, "learning_rate": 0.3, "batch_size": 32},
        "secure_sum": {"profile": "masked"},
    }
    for section, replaced in (sections or {}).items():
        content.setdefault(section, {}).update(replaced)
    config = folder / "banks.toml"
    config.write_text(tomli_w.dumps(content), encoding="utf-8")
    return config

"""What protection costs boosted trees, and what the models are that tell it."""

from __future__ import annotations

from typing import Final

from fedcredit.report.compare import Rival, difference, rivals
from fedcredit.report.files import Boost, Settings
from fedcredit.report.sections import Evidence
from fedcredit.report.words import amount, decimals

__all__ = ["compared", "cost", "price", "protected"]

_LIBRARY: Final = "The field's library with the same settings on pooled plain rows"


def protected(settings: Settings) -> bool:
    """Whether there is noise or a cap."""
    cap = settings.boost.holder_thresholds if settings.boost else 0
    return settings.privacy.noise_rows > 0 or cap > 0


def cost(seen: Evidence) -> float | None:
    """AUC that protection costs; None where there was none, or nothing to compare with."""
    bare = seen.summary.auc_pooled_unprotected
    return None if bare is None or not protected(seen.settings) else difference(bare, seen.figures.auc)


def price(seen: Evidence) -> list[tuple[str, str]]:
    """The cost as a short heading and a sentence; nothing where it is not known."""
    lost = cost(seen)
    if lost is None:
        return []
    heading = f"Price of protection: {decimals(lost, 4)} AUC." if lost > 0 else "Protection cost nothing here."
    bare = decimals(seen.summary.auc_pooled_unprotected, 4)
    return [(heading, f"The same trees without noise and caps, on pooled rows, reach {bare}.")]


def compared(seen: Evidence, boost: Boost) -> list[Rival]:
    """The label holder alone, this run, the same without protection, and XGBoost."""
    summary, metrics, safe = seen.summary, seen.summary.metrics, protected(seen.settings)
    bins = f"{boost.bins} bins a column"
    alone = f"The same kind of trees from the columns of {summary.bank} only. Nothing is disclosed."
    ours = f"This run: {_protection(seen.settings)}, {boost.holder_bins} bins a column of a feature holder."
    distance = "What protection costs is the distance to it." if safe else "Only chance tells it from this run."
    bare = f"The same trees on pooled plain rows: no noise, no cap, {bins} at every party. {distance}"
    library = f"{_LIBRARY}: {bins}, no noise, no cap, gradients not rounded."
    name = "Together, protected" if safe else "Together, this run"
    return rivals(
        [
            ("alone", f"{summary.bank} alone", alone, metrics.alone, seen.figures.alone),
            ("together", name, ours, metrics.federated, seen.figures.auc),
            ("bare", "Together, unprotected", bare, metrics.unprotected, summary.auc_pooled_unprotected),
            ("reference", "XGBoost, pooled rows", library, metrics.reference, summary.auc_pooled_reference),
        ]
    )


def _protection(settings: Settings) -> str:
    noise = settings.privacy.noise_rows
    cap = settings.boost.holder_thresholds if settings.boost else 0
    words = f"noise of {amount(noise)} rows on every sum" if noise else "no noise on sums"
    return f"{words}, {f'at most {cap} thresholds a feature' if cap else 'no cap on thresholds'}"

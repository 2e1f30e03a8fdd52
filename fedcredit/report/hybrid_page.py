"""The report of a hybrid run: what several banks gain from each other and from feature holders, bank by bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcredit.report.compare import difference
from fedcredit.report.files import Hybrid, HybridBank, Leakage, Summary
from fedcredit.report.label_holder import numbered
from fedcredit.report.parts import Learned, learned, meters, routes
from fedcredit.report.read import damaged, read_heads, read_leakage, read_transcript
from fedcredit.report.words import count, decimals, join, signed

__all__ = ["BankLine", "hybrid_view"]

_CONTENTS: Final = (
    ("banks", "Bank by bank"),
    ("learned", "What each party learned"),
    ("cost", "Cost of the run"),
    ("evidence", "Evidence and reproduction"),
)

_LEAST, _MOST = 0.5, 1.0


@dataclass(frozen=True)
class BankLine:
    """One bank in the table.

    Args:
        bank: Its figures.
        marks: For each model with an AUC: key, place between 0.5 and 1 in per cent, and AUC.
        gain: AUC of the main model less that of own columns and own rows, as printed; "" where one is missing.
        loses: Whether it would do better on its own.
    """

    bank: HybridBank
    marks: list[tuple[str, float, float]]
    gain: str
    loses: bool


def hybrid_view(run: Path, summary: Summary, hybrid: Hybrid) -> dict[str, object]:
    """Values for the template.

    Args:
        run: Run directory.
        summary: Its summary.
        hybrid: The summary's part on several banks.

    Raises:
        DataError: a file is missing, or the summary names no models or banks.
    """
    if not hybrid.banks or hybrid.main not in {model.key for model in hybrid.models}:
        raise damaged("summary.json: hybrid names no banks, or no model as the main one")
    leakage = read_leakage(run)
    lines = [_line(bank, hybrid) for bank in hybrid.banks]
    holders = [party for party, role in _roles(summary).items() if role == "feature_holder"]
    return {
        "hybrid": hybrid,
        "holders": holders,
        "main": next(model for model in hybrid.models if model.key == hybrid.main),
        "lines": sorted(lines, key=lambda one: -one.bank.rows_train),
        "bars": [(model, _place(model.auc)) for model in hybrid.models],
        "verdict": _verdict(hybrid, lines, holders),
        "statements": _statements(hybrid),
        "rows_train": sum(bank.rows_train for bank in hybrid.banks),
        "rows_test": sum(bank.rows_test for bank in hybrid.banks),
        "bads_test": sum(bank.positives_test for bank in hybrid.banks),
        "learned": _learned(leakage),
        "meters": meters(leakage),
        "routes": routes(read_transcript(run)),
        "heads": read_heads(run),
        **numbered(_CONTENTS),
    }


def _roles(summary: Summary) -> dict[str, str]:
    return summary.parties if isinstance(summary.parties, dict) else dict.fromkeys(summary.parties, "")


def _learned(leakage: Leakage) -> list[Learned]:
    return learned(leakage, lambda _: True, "each bank")


def _place(auc: float | None) -> float:
    return 0.0 if auc is None else round(100 * max(0.0, (auc - _LEAST) / (_MOST - _LEAST)), 2)


def _line(bank: HybridBank, hybrid: Hybrid) -> BankLine:
    known = [(model.key, bank.auc.get(model.key)) for model in hybrid.models]
    marks = [(key, _place(auc), auc) for key, auc in known if auc is not None]
    ours, own = bank.auc.get(hybrid.main), bank.auc.get(hybrid.models[0].key)
    if ours is None or own is None:
        return BankLine(bank, marks, "", loses=False)
    gain = difference(ours, own)
    return BankLine(bank, marks, signed(gain, 4), loses=gain < 0)


def _verdict(hybrid: Hybrid, lines: Sequence[BankLine], holders: Sequence[str]) -> str:
    main, own = next(one for one in hybrid.models if one.key == hybrid.main), hybrid.models[0]
    if main.auc is None or own.auc is None:
        return f"{count(len(lines))} banks and {join(list(holders))} trained one model."
    gain = difference(main.auc, own.auc)
    losing = [line.bank.name for line in lines if line.loses]
    who = "every bank gains" if not losing else f"{count(len(lines) - len(losing))} of {count(len(lines))} banks gain"
    return (
        f"Together {count(len(lines))} banks and {join(list(holders))} rank held-out borrowers with a mean AUC of "
        f"{decimals(main.auc, 4)}, {decimals(abs(gain), 4)} {'above' if gain >= 0 else 'below'} each bank on its own; "
        f"{who}."
    )


def _statements(hybrid: Hybrid) -> list[tuple[str, str]]:
    same = (
        "The same steps on all rows in one place give the same scores, to the last digit."
        if hybrid.equal_pooled_plaintext
        else "The scores differ from those of the same steps on all rows in one place: look into it."
    )
    added = f"{count(hybrid.sums)} sums of {count(hybrid.values_summed)} values were added under {hybrid.secure_sum}."
    own = "Each bank keeps an intercept of its own." if hybrid.own_intercepts else "All banks share one intercept."
    told: list[tuple[str, str]] = [
        ("Exact." if hybrid.equal_pooled_plaintext else "NOT EXACT.", f" {same}"),
        ("No bank sees another's sums.", f" {added}"),
        ("Own risk.", f" {own}"),
    ]
    return [*told, *((fact, "") for fact in hybrid.facts)]

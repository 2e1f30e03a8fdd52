"""The report of a run of averaging: the common model beside what each bank has alone, round by round, bank by bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fedcredit.report.compare import difference
from fedcredit.report.files import Summary
from fedcredit.report.label_holder import numbered
from fedcredit.report.parts import learned, meters, routes
from fedcredit.report.privacy_part import privacy_part
from fedcredit.report.read import damaged, file_bytes, read_heads, read_leakage, read_transcript
from fedcredit.report.words import count, decimals, signed

__all__ = ["averaged_view"]

_CONTENTS: Final[tuple[tuple[str, str], ...]] = (
    ("banks", "Bank by bank"),
    ("rounds", "Round by round"),
    ("privacy", "Differential privacy"),
    ("learned", "What each party learned"),
    ("cost", "Cost of the run"),
    ("evidence", "Evidence and reproduction"),
)
_LEAST, _MOST = 0.5, 1.0
_FEW: Final = 20
"""Banks up to which routes of messages are listed."""

T = TypeVar("T")


class _Bank(msgspec.Struct, frozen=True):
    name: str
    rows_train: int
    rows_test: int
    positives_test: int
    auc_test: float | None = None
    auc_personal: float | None = None
    auc_pooled: float | None = None
    auc_alone: float | None = None


class _Lost(msgspec.Struct, frozen=True):
    party: str
    step: int
    code: str
    text: str


class _Rounds(msgspec.Struct, frozen=True):
    played: int
    best: int
    discarded: int = 0
    unusual: list[int] = []


class _Pooled(msgspec.Struct, frozen=True):
    rows: int
    auc: float | None = None
    loss: float | None = None
    personal_auc: float | None = None


class _Measure(msgspec.Struct, frozen=True):
    auc: float | None = None


class _Measures(msgspec.Struct, frozen=True):
    alone: _Measure = _Measure()
    federated: _Measure = _Measure()
    personal: _Measure = _Measure()
    pooled_plaintext: _Measure = _Measure()


class _Averaged(msgspec.Struct, frozen=True):
    """``summary.json`` as far as averaging adds to it; a bank's own house knows of no other bank's figures."""

    rounds: _Rounds
    members: list[str]
    parameters: int
    rows_train: int
    rows_test: int
    positives_test: int
    model_digest: str | None = None
    auc_test: float | None = None
    auc_personal: float | None = None
    pooled: _Pooled | None = None
    metrics: _Measures = _Measures()
    model_equals_plain_sums: bool | None = None
    privacy_unit: str = "none"
    engine: str | None = None
    banks: list[_Bank] = []
    lost: list[_Lost] = []


class _Round(msgspec.Struct, frozen=True):
    """A line of ``model/BANK/rounds.json``."""

    number: int
    members: int
    norm: float
    agreement: float
    validation_loss: float | None
    discarded: bool
    unusual: bool


@dataclass(frozen=True)
class BankLine:
    """One bank in the table.

    Args:
        bank: Its figures.
        gain: AUC of the common model less that of its own, as printed; "" where one is missing.
        loses: Whether it would do better on its own.
    """

    bank: _Bank
    gain: str
    loses: bool


def averaged_view(run: Path, summary: Summary) -> dict[str, object]:
    """Values for the template.

    Args:
        run: Run directory.
        summary: Its summary.

    Raises:
        DataError: a file is missing or damaged.
    """
    averaged = _read(run, "summary.json", _Averaged)
    leakage = read_leakage(run)
    lines = [_line(bank) for bank in averaged.banks]
    measures = averaged.metrics
    privacy = privacy_part(run)
    own = measures.federated.auc if averaged.banks else averaged.auc_test
    models = [
        ("Each bank alone", measures.alone.auc),
        ("Averaged", own),
        ("Averaged, then made its own", measures.personal.auc or averaged.auc_personal),
        ("All rows in one place", measures.pooled_plaintext.auc),
    ]
    return {
        "averaged": averaged,
        "main_auc": own,
        "bars": [(name, auc, _place(auc)) for name, auc in models if auc is not None],
        "lines": sorted(lines, key=lambda one: -one.bank.rows_train),
        "rounds": _read(run, f"model/{summary.bank}/rounds.json", list[_Round]),
        "verdict": _verdict(averaged, own),
        "statements": _statements(averaged, summary),
        "learned": learned(leakage, lambda _: True, "each bank"),
        "meters": meters(leakage),
        "routes": routes(read_transcript(run)) if len(averaged.banks) <= _FEW else [],
        "heads": read_heads(run),
        "privacy": privacy,
        **numbered(tuple(one for one in _CONTENTS if privacy is not None or one[0] != "privacy")),
    }


def _read(run: Path, name: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file_bytes(run / name, run), type=kind)
    except msgspec.MsgspecError as error:
        raise damaged(f"{name} is damaged: {error}") from error


def _place(auc: float | None) -> float:
    return 0.0 if auc is None else round(100 * max(0.0, (auc - _LEAST) / (_MOST - _LEAST)), 2)


def _line(bank: _Bank) -> BankLine:
    if bank.auc_test is None or bank.auc_alone is None:
        return BankLine(bank, "", loses=False)
    gain = difference(bank.auc_test, bank.auc_alone)
    return BankLine(bank, signed(gain, 4), loses=gain < 0)


def _verdict(averaged: _Averaged, own: float | None) -> str:
    banks, rounds = count(len(averaged.members)), count(averaged.rounds.played)
    if own is None:
        return f"{banks} banks trained one network in {rounds} rounds."
    said = f"In {rounds} rounds {banks} banks trained one network; its AUC on held-out rows is {decimals(own, 4)}"
    alone, pooled = averaged.metrics.alone.auc, averaged.metrics.pooled_plaintext.auc
    if alone is None or pooled is None:
        return f"{said}."
    return (
        f"{said}, against {decimals(alone, 4)} of each bank on its own and {decimals(pooled, 4)} of the same network "
        "trained on all rows in one place."
    )


def _statements(averaged: _Averaged, summary: Summary) -> list[tuple[str, str]]:
    told = []
    same = averaged.model_equals_plain_sums
    if same is not None:
        exact = "Adding in the clear gives the same model, to the bit."
        other = "Adding in the clear gives another model: look into it."
        told.append(("Exact." if same else "NOT EXACT.", f" {exact if same else other}"))
    hidden = (
        "the coordinator sees neither updates nor sums"
        if summary.encryption.profile == "masked+he"
        else ("the coordinator sees sums, no bank's update")
    )
    told.append(("Only sums.", f" What banks bring is masked; {hidden}."))
    if averaged.privacy_unit == "none":
        told.append(("No noise.", " The model itself may give away single rows; differential privacy was off."))
    else:
        told.append(("Noise.", f" Differential privacy protects each {averaged.privacy_unit}."))
    if averaged.lost:
        who = "; ".join(f"{one.party} at step {one.step}: {one.text} [{one.code}]" for one in averaged.lost)
        told.append(("Banks left out.", f" {who}."))
    return told

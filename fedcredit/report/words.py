"""Numbers and sentences as the report prints them: plain English, sensible digits, a real minus sign."""

from __future__ import annotations

import math
from typing import Final

from fedcredit.kernels.stability import MOVED, MOVING
from fedcredit.report.files import Dropped

__all__ = [
    "amount",
    "at_most",
    "count",
    "decimals",
    "dropped_reason",
    "duration",
    "figures",
    "iv_strength",
    "join",
    "model_name",
    "p_value",
    "percent",
    "power_of_two",
    "role_name",
    "signed",
    "size",
    "stability_level",
]

_NONE: Final = "–"
_MINUS: Final = "\N{MINUS SIGN}"
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Readings of information value: Siddiqi, "Credit Risk Scorecards" (2006), ch. 6.
_IV_READINGS: Final = ((0.02, "very weak"), (0.1, "weak"), (0.3, "medium"), (0.5, "strong"))
_IV_BEYOND: Final = "very strong"

_MODELS: Final = {"scorecard": "Scorecard", "boost": "Boosted trees", "fedavg": "Averaged network"}
_ROLES: Final = {"label_holder": "Label holder", "feature_holder": "Feature holder", "coordinator": "Coordinator"}


def _minus(text: str) -> str:
    return text.replace("-", _MINUS)


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash for none; never minus zero."""
    if value is None or not math.isfinite(value):
        return _NONE
    return _minus(f"{round(value, digits) + 0.0:,.{digits}f}")


def figures(value: float | None, digits: int = 4) -> str:
    """A number with so many significant figures, a whole one with all of its own."""
    if value is None or not math.isfinite(value):
        return _NONE
    if value == 0:
        return "0"
    if abs(value) < 10**digits:
        value = float(f"{value:.{digits - 1}e}")  # so that 9.9996 has no fifth figure
    return decimals(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; zero is written with plus or minus sign."""
    if value is None or not math.isfinite(value):
        return _NONE
    rounded = round(value, digits)
    return "±" + f"{0:.{digits}f}" if rounded == 0 else _minus(f"{rounded:+,.{digits}f}")


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return _NONE if value is None else _minus(f"{round(value):,}")


def amount(value: float | None) -> str:
    """A number of ledger units: whole if it is, else one decimal."""
    if value is None:
        return _NONE
    return count(value) if float(value).is_integer() else decimals(value, 1)


def at_most(label: str, name: str = "") -> str:
    """A label of a numeric column with a real "at most" sign where the run wrote one, after the column's name."""
    start = f"{name} <= " if name else "<= "
    return f"{start[:-3]}≤ {label.removeprefix(start)}" if label.startswith(start) else label


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0 to 1 in per cent."""
    return _NONE if share is None else f"{decimals(100 * share, digits)} %"


def size(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return _NONE
    if value < 1000:
        return f"{round(value)} B"
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            break
    return f"{value:,.{1 if value < 100 else 0}f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds; from two minutes up, minutes and seconds."""
    if seconds is None:
        return _NONE
    if seconds < 120:
        return f"{decimals(seconds, 1)} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def p_value(value: float | None) -> str:
    """A p-value, not below 0.001."""
    if value is None:
        return _NONE
    return "< 0.001" if value < 0.001 else decimals(value)


def power_of_two(exponent: float | None) -> str:
    """2 to a power, the exponent raised and rounded up."""
    return _NONE if exponent is None else f"2{str(math.ceil(exponent)).translate(_RAISED)}"


def join(names: list[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def iv_strength(value: float | None) -> str:
    """Customary reading of an information value."""
    if value is None:
        return _NONE
    return next((word for limit, word in _IV_READINGS if value < limit), _IV_BEYOND)


def stability_level(value: float | None) -> str:
    """Customary reading of a population stability index: limits 0.10 and 0.25."""
    if value is None:
        return _NONE
    return "stable" if value < MOVING else "watch" if value < MOVED else "shifted"


def model_name(model: str) -> str:
    """A kind of model in words."""
    return _MODELS.get(model, model)


def role_name(receiver: str) -> str:
    """A role in words; a party's name stays as it is."""
    return _ROLES.get(receiver, receiver)


def dropped_reason(dropped: Dropped) -> str:
    """Why a feature did not enter, as one sentence."""
    value, limit = dropped.value, dropped.limit
    named = [dropped.against] if isinstance(dropped.against, str) else dropped.against or []
    others = [name for name in named if name]
    against = f" with {join(others)}" if others else ""
    texts = {
        "iv": f"Information value {decimals(value)} is below the minimum {decimals(limit)}.",
        "stability": f"Its mix moved between training and held-out rows: population stability {decimals(value)}, "
        f"limit {decimals(limit, 2)}.",
        "correlation": f"Correlation {decimals(value, 2)}{against} is beyond the limit {decimals(limit, 2)}; the one "
        "with the higher information value stayed.",
        "vif": f"Mostly explained by the other features: variance inflation {decimals(value, 1)}, "
        f"limit {decimals(limit, 1)}.",
        "equations": f"The owner's disclosure ledger does not allow it: {amount(value)} equations would be needed, "
        f"{amount(limit)} are allowed.",
        "bins": f"The cap on bins returned to their owner leaves no room: {amount(value)} would be needed, "
        f"{amount(limit)} are allowed.",
        "count": f"The run takes at most {amount(limit)} features and this one ranked lower.",
    }
    return texts.get(dropped.reason, f"Reason given by the run: {dropped.reason}.")

"""A feature in a few words, for tables that people read."""

from __future__ import annotations

from fedcredit.catalog import features as kinds
from fedcredit.catalog.model import Catalog

__all__ = ["formula", "source_of"]


def source_of(catalog: Catalog, name: str) -> str:
    """What a feature is made of: ``table.column``, a table, or two features."""
    feature = catalog.features[name]
    if isinstance(feature, kinds.Quotient):
        return f"{feature.top} / {feature.bottom}"
    column = getattr(feature, "column", None)
    per = getattr(feature, "per", None)
    shown = feature.table if column is None else f"{feature.table}.{column}"
    return shown if per is None else f"{shown} / {per}"


def formula(feature: kinds.ByColumn | kinds.Quotient) -> str:
    """The operator with its window."""
    if isinstance(feature, kinds.Trend):
        return f"trend ({feature.of}), {feature.recent} on {feature.earlier} months"
    words: str = feature.kind
    of = getattr(feature, "of", None)
    if of is not None:
        words += f" ({of})"
    months = getattr(feature, "months", None)
    if months is not None:
        words += f", {months} months"
    over = getattr(feature, "over", None)
    if over is not None:
        words += f", over {over}"
    skip = getattr(feature, "skip", 0)
    return f"{words}, {skip} skipped" if skip else words

"""Rules of a catalogue that span keys, and the rule that no feature may look past the as-of day.

Each raises a ``PydanticCustomError`` of type ``fedcredit`` whose context holds ``key`` (dotted path), ``right`` (what
was found and what would be right) and ``code``, which ``fedcredit.catalog.explain`` prints as they are.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

from pydantic_core import PydanticCustomError

from fedcredit.catalog import features as kinds
from fedcredit.catalog.windows import reach
from fedcredit.spec.rules import nearest

if TYPE_CHECKING:
    from fedcredit.catalog.model import Catalog, Table

__all__ = ["FUTURE", "PLACEHOLDERS", "check_rules"]

FUTURE = "catalog.future"
"""Code of the error of a definition that would look past the as-of day."""

PLACEHOLDERS = ("value", "percent", "change")
"""What a reason may hold in braces."""

_NUMBERS = frozenset({"number", "flag"})
_MONTHLY = (
    kinds.Level,
    kinds.Trend,
    kinds.Growth,
    kinds.Volatility,
    kinds.Missed,
    kinds.Active,
    kinds.Lateness,
    kinds.Concentration,
    kinds.Ratio,
    kinds.Drop,
    kinds.Beyond,
)
_STATIC = (kinds.Age, kinds.Value)


def _refuse(key: str, right: str, code: str = "catalog.value") -> NoReturn:
    raise PydanticCustomError("fedcredit", "{right}", {"key": key, "right": right, "code": code})


def check_rules(catalog: Catalog) -> None:
    """Check everything that no single key can tell.

    Raises:
        PydanticCustomError: with ``key``, ``right`` and ``code`` in its context.
    """
    if catalog.rows not in catalog.tables:
        _refuse("rows", f'no table "{catalog.rows}"; {nearest(catalog.rows, catalog.tables)}')
    if not catalog.tables[catalog.rows].required:
        _refuse(f"tables.{catalog.rows}.required", "false for the table that gives the rows; remove it")
    for name, table in catalog.tables.items():
        _check_table(name, table)
    _check_label(catalog)
    for name in catalog.features:
        _check_feature(catalog, name)


def _check_table(name: str, table: Table) -> None:
    at = f"tables.{name}"
    _column(table, at, "id", table.id, {"id"})
    if table.time is not None:
        _column(table, at, "time", table.time, {"date"})
    elif table.period != "static":
        right = f'missing for a table of period "{table.period}"; name the column that dates its rows'
        _refuse(f"{at}.time", f"{right}, as nothing else keeps rows after the as-of day out", FUTURE)
    for key in ("time", "id"):
        column = getattr(table, key)
        if column is not None and not table.columns[column].required:
            _refuse(f"{at}.columns.{column}.required", f"false for the {key} of the table; remove it")
    if table.lag and table.period != "monthly":
        _refuse(f"{at}.lag", f'given for a table of period "{table.period}"; it is for monthly ones')
    if table.key and table.period != "event":
        _refuse(f"{at}.key", f'given for a table of period "{table.period}"; it is for events')
    if table.duplicates == "sum" and table.period == "static":
        _refuse(f"{at}.duplicates", '"sum" for a static table; use "last" or "error"')
    for column in table.key:
        _column(table, at, "key", column, None)
    if table.order is not None:
        _column(table, at, "order", table.order, {"date", "number"})
    _check_columns(table, at)
    for computed, made in table.computed.items():
        if computed in table.columns:
            _refuse(f"{at}.computed.{computed}", "is the name of a column too; choose another")
        for column in (*made.plus, *made.minus):
            _column(table, at, f"computed.{computed}", column, {"number"})


def _check_columns(table: Table, at: str) -> None:
    for name, column in table.columns.items():
        here = f"{at}.columns.{name}"
        if name.startswith("."):
            _refuse(here, "begins with a dot; choose another name")
        if column.values and column.type != "category":
            _refuse(f"{here}.values", f'given for a column of type "{column.type}"; it is for categories')
        if (column.min is not None or column.max is not None) and column.type != "number":
            _refuse(f"{here}.min", f'min or max given for a column of type "{column.type}"; they are for numbers')
        if column.before is not None and column.known is None:
            _refuse(f"{here}.before", "given without `known`; name the column that says when the value became known")
        if column.before is not None and column.type != "number":
            _refuse(f"{here}.before", f'given for a column of type "{column.type}"; it is for numbers')
        if column.known is not None:
            if table.time is None:
                _refuse(f"{here}.known", "given in a table without a time column; name one")
            _column(table, at, f"columns.{name}.known", column.known, {"date", "number"})


def _column(table: Table, at: str, key: str, name: str, types: Collection[str] | None) -> None:
    if name not in table.columns:
        _refuse(f"{at}.{key}", f'no column "{name}"; {nearest(name, table.columns)}')
    found = table.columns[name].type
    if types is not None and found not in types:
        _refuse(f"{at}.{key}", f'column "{name}" is of type "{found}"; a column of type {_either(types)} is needed')


def _either(types: Iterable[str]) -> str:
    return " or ".join(f'"{name}"' for name in sorted(types))


def _check_label(catalog: Catalog) -> None:
    label = catalog.label
    if label is None:
        return
    for key in ("table", "population"):
        name = getattr(label, key)
        if name not in catalog.tables:
            _refuse(f"label.{key}", f'no table "{name}"; {nearest(name, catalog.tables)}')
        if not catalog.tables[name].required:
            _refuse(f"tables.{name}.required", "false for a table of the label; remove it")
    if catalog.tables[label.table].time != label.column:
        _refuse("label.column", f'"{label.column}" is not the time column of the table "{label.table}"; name that')
    if label.running is not None:
        _column(catalog.tables[label.population], "label", "running", label.running, {"number"})
    if label.name in catalog.features:
        _refuse("label.name", f'"{label.name}" is the name of a feature too; choose another')


def _check_feature(catalog: Catalog, name: str) -> None:
    feature = catalog.features[name]
    at = f"features.{name}"
    _check_reason(f"{at}.reason", feature.reason)
    if isinstance(feature, kinds.Quotient):
        for key in ("top", "bottom"):
            part = getattr(feature, key)
            if part not in catalog.features:
                _refuse(f"{at}.{key}", f'no feature "{part}"; {nearest(part, catalog.features)}')
            if isinstance(catalog.features[part], kinds.Quotient):
                _refuse(f"{at}.{key}", f'"{part}" is a quotient itself; divide features made of columns')
            if _is_text(catalog, part):
                _refuse(f"{at}.{key}", f'"{part}" is a category; divide numbers')
        return
    if feature.table not in catalog.tables:
        _refuse(f"{at}.table", f'no table "{feature.table}"; {nearest(feature.table, catalog.tables)}')
    table = catalog.tables[feature.table]
    _check_period(table, feature, at)
    _check_uses(table, feature, at)
    _check_window(catalog, feature, at)
    _check_keys(catalog, feature, at)


def _check_reason(key: str, reason: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(reason) if name is not None]
    except ValueError:
        _refuse(key, f"has a brace that is not closed; write {{{PLACEHOLDERS[0]}}}")
    for name in names:
        if name not in PLACEHOLDERS:
            _refuse(key, f"has {{{name}}}; known are {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}")


def _is_text(catalog: Catalog, name: str) -> bool:
    feature = catalog.features[name]
    if not isinstance(feature, (kinds.Value, kinds.Latest)) or feature.codes or feature.table not in catalog.tables:
        return False
    column = catalog.tables[feature.table].columns.get(feature.column)
    return column is not None and column.type == "category"


def _check_period(table: Table, feature: kinds.ByColumn, at: str) -> None:
    wanted: tuple[str, ...] = ("event",)
    if isinstance(feature, _MONTHLY):
        wanted = ("monthly",)
    elif isinstance(feature, _STATIC):
        wanted = ("static",)
    elif isinstance(feature, kinds.Recency):
        wanted = ("event", "monthly") if feature.column is None else ("monthly",)
    if table.period not in wanted:
        right = f'kind "{feature.kind}" needs a table of period {_either(wanted)}'
        _refuse(f"{at}.table", f'"{feature.table}" is of period "{table.period}"; {right}')


def _check_uses(table: Table, feature: kinds.ByColumn, at: str) -> None:
    """Columns exist, are of the right type, and say nothing about the time after the as-of day."""
    for key, name, types in _uses(feature):
        if name not in table.columns and name not in table.computed:
            known = [*table.columns, *table.computed]
            _refuse(f"{at}.{key}", f'table "{feature.table}" has no column "{name}"; {nearest(name, known)}')
        made = table.computed.get(name)
        for part in (name,) if made is None else (*made.plus, *made.minus):
            column = table.columns[part]
            if column.label_only:
                _refuse(f"{at}.{key}", f'column "{part}" is label_only: it says what came later; use another', FUTURE)
            if column.overwritten:
                right = "is overwritten in place, so it shows a later day than the as-of day; use another"
                _refuse(f"{at}.{key}", f'column "{part}" {right}', FUTURE)
        found = "number" if made is not None else table.columns[name].type
        if found not in types:
            _refuse(f"{at}.{key}", f'column "{name}" is of type "{found}"; {_either(types)} is needed')
    if table.time is not None and table.columns[table.time].label_only:
        right = f'the time column "{table.time}" of table "{feature.table}" is label_only: it says what came later'
        _refuse(f"{at}.table", f"{right}; use another table", FUTURE)


def _uses(feature: kinds.ByColumn) -> list[tuple[str, str, frozenset[str]]]:
    """Key, column and the types it may be of, for every column of its own table that a feature reads."""
    found: list[tuple[str, str, frozenset[str]]] = []
    if isinstance(feature, (kinds.Lateness, kinds.Age)):
        found.append(("column", feature.column, frozenset({"date"})))
    elif isinstance(feature, (kinds.Latest, kinds.Value)):
        types = {"category"} if feature.codes else {"category", *_NUMBERS}
        found.append(("column", feature.column, frozenset(types)))
    elif not isinstance(feature, kinds.Count) and feature.column is not None:
        found.append(("column", feature.column, _NUMBERS))
    for key in ("weight", "per", "due", "term"):
        name = getattr(feature, key, None)
        if name is not None:
            found.append((key, name, _NUMBERS))
    if isinstance(feature, kinds.Open) and feature.until is not None:
        found.append(("until", feature.until, frozenset({"date"})))
    where: Mapping[str, object] = getattr(feature, "where", {})
    found += [(f"where.{name}", name, frozenset({"category"})) for name in where]
    return found


def _check_window(catalog: Catalog, feature: kinds.ByColumn, at: str) -> None:
    if not isinstance(feature, _MONTHLY):
        return
    back = reach(feature)
    if back > catalog.months:
        right = f"reaches {back} months back, and the monthly tables hold {catalog.months} (key `months`); shorten it"
        _refuse(f"{at}.months", right)


def _check_keys(catalog: Catalog, feature: kinds.ByColumn, at: str) -> None:
    """Keys of one kind that depend on each other."""
    if isinstance(feature, kinds.Missed) and feature.since is not None:
        _check_since(catalog, feature.since, f"{at}.since")
    if isinstance(feature, kinds.Beyond) and [feature.below, feature.above, feature.part].count(None) != 2:
        _refuse(f"{at}.below", "give exactly one of below, above and part")
    if isinstance(feature, kinds.Drop) and feature.over >= feature.months:
        _refuse(f"{at}.over", f"found {feature.over}, not below months = {feature.months}; lower it")
    if isinstance(feature, (kinds.Level, kinds.Volatility)) and feature.least > feature.months:
        _refuse(f"{at}.least", f"found {feature.least}, above months = {feature.months}; lower it")
    if isinstance(feature, kinds.Trend) and feature.of == "slope" and feature.recent + feature.earlier < 3:
        _refuse(f"{at}.earlier", "a slope needs at least 3 months; raise recent or earlier")
    if isinstance(feature, kinds.Recency) and feature.column is not None and feature.where:
        _refuse(f"{at}.where", "given for a monthly table; it is for events")
    if isinstance(feature, kinds.Open):
        if (feature.until is None) == (feature.term is None):
            _refuse(f"{at}.until", "give exactly one of until (a date) and term (months)")
        if (feature.of in ("sum", "mean")) != (feature.column is not None):
            _refuse(f"{at}.column", 'is for of = "sum" and of = "mean", which need it')


def _check_since(catalog: Catalog, since: str, key: str) -> None:
    name, dot, column = since.partition(".")
    if not dot:
        _refuse(key, f'found "{since}"; write table.column, a date of a static table')
    if name not in catalog.tables:
        _refuse(key, f'no table "{name}"; {nearest(name, catalog.tables)}')
    table = catalog.tables[name]
    if column not in table.columns:
        _refuse(key, f'table "{name}" has no column "{column}"; {nearest(column, table.columns)}')
    if table.period != "static" or table.columns[column].type != "date":
        _refuse(key, f'"{since}" is no date of a static table; name one')
    if table.columns[column].label_only or table.columns[column].overwritten:
        _refuse(key, f'column "{column}" says what came later; use another', FUTURE)

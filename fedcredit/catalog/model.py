"""A holder's catalogue as frozen values: its raw tables, column by column, and the features derived from them.

Validation happens on construction and raises pydantic's error; ``fedcredit.catalog.load`` turns that into one line of
``SpecError`` that names file and key. Rules that span keys stand in ``fedcredit.catalog.rules``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedcredit.catalog.features import ByColumn, Feature, Quotient
from fedcredit.catalog.parts import NAME, Names, Number, Section, Text
from fedcredit.catalog.rules import check_rules

__all__ = ["Catalog", "Column", "Computed", "LabelSection", "Table"]

ColumnType = Literal["id", "text", "category", "number", "flag", "date"]
Period = Literal["static", "monthly", "event"]
Duplicates = Literal["last", "sum", "error"]
Sensitivity = Literal["public", "internal", "confidential", "personal"]


class Column(Section):
    """``[tables.TABLE.columns]``: one column of a raw table.

    Attributes:
        type: ``id`` (of the enterprise), ``text``, ``category``, ``number``, ``flag`` (true or false) or ``date``.
        about: What it is, in plain words.
        unit: Of a number, such as ``yuan`` or ``kWh``; empty for what has none.
        sensitivity: Who may see it at the holder; nothing of it leaves the holder whatever it says.
        required: Whether the source must have the column. Features of one that is optional and absent are left out.
        min: Least value that makes sense; what lies below is counted by ``catalog check``.
        max: Greatest value that makes sense.
        values: Every value a category may have.
        known: Column of the same table that says when this one became known: a date, or a number of days after the
            row's own date. What became known after the as-of day is replaced by ``before``.
        before: What the holder would have read on the as-of day if the value was not known yet; absent = missing.
        overwritten: Holds the state of today, not that of the row's date; no feature may use it.
        label_only: Says what happened after the as-of day; only ``[label]`` may use it.
    """

    type: ColumnType
    about: Text
    unit: str = ""
    sensitivity: Sensitivity = "confidential"
    required: bool = True
    min: Number | None = None
    max: Number | None = None
    values: Names = ()
    known: Text | None = None
    before: Number | None = None
    overwritten: bool = False
    label_only: bool = False


class Computed(Section):
    """``[tables.TABLE.computed]``: a number made of others of the same row: the sum of ``plus`` less that of ``minus``.

    Missing where one of them is missing.

    Attributes:
        plus: Columns that are added.
        minus: Columns that are taken away.
        about: What it is, in plain words.
        unit: As of a column.
    """

    plus: Annotated[Names, Field(min_length=1)]
    minus: Names = ()
    about: Text
    unit: str = ""


class Table(Section):
    """``[tables.TABLE]``: one raw table.

    Attributes:
        about: What a row is, in plain words.
        period: ``static`` (one row an enterprise), ``monthly`` (one row an enterprise and month) or ``event``.
        id: Column of the enterprise's id.
        time: Column of the row's date. In a monthly table any day of the month; the row is then dated by the last day
            of that month, since it speaks of all of it.
        lag: Months that pass before a monthly row can be read; the row is dated that much later.
        duplicates: What several rows of one enterprise (and month) mean: the ``last`` one counts, their numbers are to
            be added (``sum``; in an event table each row is an event of its own), or the source is in ``error``.
        key: In an event table, columns that with the id make rows the same event; absent = all columns.
        order: Column that says which of several rows is the last, such as the day of booking (a row booked after the
            as-of day is not known yet); absent = the order of the source.
        required: Whether the source must have the table. Features of one that is optional and absent are left out.
        columns: By name.
        computed: Numbers made of columns, by name.
    """

    about: Text
    period: Period
    id: Text = "uscc"
    time: Text | None = None
    lag: Annotated[int, Field(ge=0, le=24)] = 0
    duplicates: Duplicates
    key: Names = ()
    order: Text | None = None
    required: bool = True
    columns: Annotated[Mapping[Text, Column], Field(min_length=1)]
    computed: Mapping[Text, Computed] = Field(default_factory=dict)


class LabelSection(Section):
    """``[label]``: what is to be predicted. The only part of a catalogue that looks past the as-of day.

    An enterprise is bad (1) if ``column`` has a date in the months after the as-of day, else good (0).

    Attributes:
        name: Name of the label column.
        table: Event table of what happened.
        column: Its date.
        horizon_months: Months after the as-of day in which it counts.
        population: Table that an enterprise must have a row in, dated up to the as-of day, to be a row of the run.
        running: Column of ``population``: the row counts only while so many months since its date have not passed.
        exclude_before: Whether an enterprise that it happened to up to the as-of day is no row of the run.
        about: What it is, in plain words.
    """

    name: Annotated[str, Field(pattern=NAME)]
    table: Text
    column: Text
    horizon_months: Annotated[int, Field(ge=1, le=60)]
    population: Text
    running: Text | None = None
    exclude_before: bool = True
    about: Text


class Catalog(Section):
    """A whole catalogue file.

    Attributes:
        format: 1.
        holder: Short name of the kind of institution.
        title: What it is called.
        about: What it holds, in plain words.
        source: Public document that the list of columns comes from.
        ids: ``uscc`` (unified social credit codes, normalised and checked) or ``text`` (as they stand).
        rows: Table whose enterprises are the holder's rows.
        months: Months of history that the monthly tables are expected to hold.
        tables: By name.
        label: At a label holder.
        features: By name.
    """

    format: Literal[1]
    holder: Annotated[str, Field(pattern=NAME)]
    title: Text
    about: Text
    source: str = ""
    ids: Literal["uscc", "text"] = "uscc"
    rows: Text
    months: Annotated[int, Field(ge=1, le=240)] = 24
    tables: Annotated[Mapping[Annotated[str, Field(pattern=NAME)], Table], Field(min_length=1)]
    label: LabelSection | None = None
    features: Mapping[Annotated[str, Field(pattern=NAME)], Feature] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        check_rules(self)
        return self

    def resolved(self, name: str) -> Iterator[ByColumn]:
        """The features on columns that feature ``name`` is made of: itself, or the two of a quotient."""
        feature = self.features[name]
        if isinstance(feature, Quotient):
            yield from self.resolved(feature.top)
            yield from self.resolved(feature.bottom)
        else:
            yield feature

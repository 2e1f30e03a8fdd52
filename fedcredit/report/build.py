"""Makes ``report.html`` from a run directory: one file, nothing fetched, the same bytes every time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import jinja2

import fedcredit
from fedcredit.errors import DataError
from fedcredit.report import words
from fedcredit.report.attention import alarms
from fedcredit.report.averaged_page import averaged_view
from fedcredit.report.feature_holder import feature_holder_view
from fedcredit.report.files import Settings, Summary
from fedcredit.report.hybrid_page import hybrid_view
from fedcredit.report.label_holder import label_holder_view
from fedcredit.report.parts import commit, encryption_words, owner_colours, title, versions
from fedcredit.report.read import party_names, read_settings, read_summary
from fedcredit.report.scorecard_part import holder_scorecard, label_scorecard
from fedcredit.report.sections import Evidence, HolderPart, LabelPart
from fedcredit.report.trees_holder import holder_trees
from fedcredit.report.trees_part import label_trees

__all__ = ["build_report", "render", "write_page"]

_FILE: Final = "report.html"

_LABEL: Final[dict[str, Callable[[Evidence], LabelPart]]] = {"scorecard": label_scorecard, "boost": label_trees}
_HOLDER: Final[dict[str, Callable[[Path, Settings, str], HolderPart]]] = {
    "scorecard": holder_scorecard,
    "boost": holder_trees,
}

_AVERAGED: Final = frozenset({"fedavg"})

_FILTERS: Final = {
    "amount": words.amount,
    "count": words.count,
    "decimals": words.decimals,
    "duration": words.duration,
    "figures": words.figures,
    "iv_strength": words.iv_strength,
    "p_value": words.p_value,
    "percent": words.percent,
    "power_of_two": words.power_of_two,
    "signed": words.signed,
    "size": words.size,
    "stability_level": words.stability_level,
}


def build_report(run: Path, party: str | None = None) -> Path:
    """Write a party's report.

    The label holder's report is ``report.html`` in the run directory; a feature holder's is
    ``model/PARTY/report.html``. Each is made from the files that this party may see, and replaces an older one whole.

    Args:
        run: Run directory.
        party: A party of the run; None = the label holder.

    Returns:
        The file written.

    Raises:
        DataError: No such party, or a file is missing or damaged.
    """
    summary = read_summary(run)
    parties = party_names(summary)
    if party is not None and (party not in parties or Path(party).name != party):  # a party's name is a folder's name
        raise DataError("report.party", f"no party {party!r} in this run; it has {words.join(list(parties))}")
    if summary.model in _AVERAGED:
        shared = _shared(summary, read_settings(run), owner_colours(parties))
        return write_page(run / _FILE, render("averaged.html.j2", {**shared, **averaged_view(run, summary)}))
    if summary.model not in _LABEL:
        known = words.join(sorted(_LABEL))
        raise DataError("report.model", f"summary.json: model {summary.model!r} has no report; those with one: {known}")
    settings, colours = read_settings(run), owner_colours(parties)
    shared = _shared(summary, settings, colours)
    if summary.hybrid is not None:
        view = hybrid_view(run, summary, summary.hybrid)
        return write_page(run / _FILE, render("hybrid.html.j2", {**shared, **view}))
    if party is None or party == summary.bank:
        view = label_holder_view(run, summary, settings, colours, _LABEL[summary.model])
        return write_page(run / _FILE, render("label_holder.html.j2", {**shared, **view}))
    view = feature_holder_view(run, summary, settings, party, _HOLDER[summary.model])
    return write_page(run / "model" / party / _FILE, render("feature_holder.html.j2", {**shared, **view}))


def _shared(summary: Summary, settings: Settings, colours: dict[str, str]) -> dict[str, object]:
    return {
        "summary": summary,
        "model": words.model_name(summary.model),
        "title": title(summary),
        "parties": list(colours),
        "colours": colours,
        "protection": encryption_words(summary.encryption),
        "enforced": settings.privacy.enforce,
        "alarms": alarms(settings, summary.bank),
        "versions": versions(summary),
        "commit": commit(summary.git),
        "product": fedcredit.__version__,
    }


def render(template: str, view: dict[str, object]) -> str:
    """A page from a template of this room; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedcredit", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FILTERS)
    return environment.get_template(template).render(view)


def write_page(path: Path, text: str) -> Path:
    """Writes a page beside its place and moves it there, so that no one ever opens half a report.

    Raises:
        DataError: It cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(temporary).chmod(0o644)  # mkstemp gives 0600; a report is read by others than its maker
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            "report.not-written", f"{path} cannot be written; choose a directory that can", str(error)
        ) from error
    return path

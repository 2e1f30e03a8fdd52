"""``fedcredit audit``: check a run's audit logs, read them, and replay what the label holder asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcredit.cli.console import write_json, write_line, write_notice, write_table
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.audit import logs_in, read_entries, verify_directory
from fedcredit.runtime.replay import Picked, Replay, replay
from fedcredit.types import PartyId

__all__ = ["register"]

_Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Run directory, with its audit/ folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Party = Annotated[str | None, typer.Option("--party", metavar="NAME", help="One party's log only.")]

_EXAMPLE = "runs/demo"


def register(app: typer.Typer) -> None:
    """Add ``audit verify``, ``audit sent``, ``audit show`` and ``audit replay`` to the program."""
    group = typer.Typer(no_args_is_help=True, help="Check and read the audit logs of a run; replay what was asked.")
    group.command("verify", epilog=f"Example: fedcredit audit verify {_EXAMPLE}")(_verify)
    group.command("sent", epilog=f"Example: fedcredit audit sent {_EXAMPLE} --party tax_office")(_sent)
    group.command("show", epilog=f"Example: fedcredit audit show {_EXAMPLE} --party bank")(_show)
    group.command("replay", epilog=f"Example: fedcredit audit replay {_EXAMPLE} --holder tax_office --sample 20")(
        _replay
    )
    app.add_typer(group, name="audit")


def _verify(
    directory: _Directory,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Check every party's audit log against its published head; exit 3 and one line at the first problem."""
    verified = verify_directory(_folder(directory))
    if json:
        write_json({party: {"entries": one.entries, "head": one.head} for party, one in verified.items()})
        return
    for party, one in verified.items():
        write_line(f"{party}: {one.entries} entries hold, head {one.head}", style="green")


def _show(
    directory: _Directory,
    party: _Party = None,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Print the entries of the audit logs; exit 3 where a chain is broken."""
    logs = _read(_folder(directory), party)
    if json:
        write_json(logs)
        return
    headers = ("LINE", "TIME", "EVENT", "KIND", "PEER", "STAGE", "BYTES", "MORE")
    for name, entries in logs.items():
        write_table(headers, [_cells(entry) for entry in entries], title=f"audit log of {name}")


def _sent(
    directory: _Directory,
    party: _Party = None,
    json: _Json = False,  # noqa: FBT002 -- typer reads the default of a flag
) -> None:
    """Say what left the house: messages and bytes by receiver and kind; exit 3 where a log does not hold.

    LEAKAGE.md of each protocol says field by field what a receiver can compute
    from a kind of message; leakage.json of the run has what was charged for it.
    """
    folder = _folder(directory)
    verify_directory(folder)
    sent = {name: _totals(entries) for name, entries in _read(folder, party).items()}
    if json:
        write_json({name: [dict(zip(_SENT, row, strict=True)) for row in rows] for name, rows in sent.items()})
        return
    for name, rows in sent.items():
        cells = [(to, kind, f"{count:,}", f"{size:,}") for to, kind, count, size in rows]
        write_table(("TO", "KIND", "MESSAGES", "BYTES"), cells, title=f"sent by {name}")
        messages, size = sum(row[2] for row in rows), sum(row[3] for row in rows)
        write_line(f"{messages:,} messages, {size:,} bytes in the protocol of this run", style="green")
    write_line("Between houses a node sends besides: its signed approval and last word, and that it is there.")


_SENT = ("recipient", "kind", "messages", "bytes")


def _totals(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    """Receiver, kind, messages and bytes of what a party sent, in that order."""
    messages: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry["event"] == "sent":
            key = (str(entry.get("recipient", "")), str(entry.get("kind", "")))
            messages[key] += 1
            size[key] += int(entry.get("bytes", 0))
    return [(*key, messages[key], size[key]) for key in sorted(messages)]


def _replay(
    directory: _Directory,
    holder: Annotated[str, typer.Option("--holder", metavar="NAME", help="Feature holder whose log is compared.")],
    *,
    vector: Annotated[
        list[int] | None, typer.Option("--vector", metavar="N", help="Number of a vector; may be repeated.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="K", help="So many at random, with all of their messages.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every vector; the default.")] = False,
    json: _Json = False,
) -> None:
    """Ask again what the label holder asked, at its house: from its own records, against the holder's log.

    Exit 3 and one line at the first vector that is not what honest training gives, or whose bytes are others.
    """
    if every and (vector or sample is not None):
        raise SpecError("replay.all", "--all leaves nothing to choose; leave out --vector and --sample, or --all")
    found = replay(directory, PartyId(holder), Picked(tuple(vector or ()), sample))
    if json:
        write_json(asdict(found))
        return
    _write_replay(found)


def _write_replay(found: Replay) -> None:
    headers = ("CONVERSATION", "VECTORS", "OF", "PADDED ZEROS", "REQUESTS", "OTHER MESSAGES", "TREES", "SECONDS")
    numbers = (len(found.checked), found.vectors, len(found.zeros), found.requests, found.messages, found.trees)
    row = (found.conversation, *(str(one) for one in numbers), f"{found.seconds:.1f}")
    write_table(headers, [row], title=f"replay against the log of {found.holder}")
    if found.zeros:
        write_line(f"padded zeros: vectors {_ranges(found.zeros)}")
    write_line("all equal: vectors, commitments, seeds, and the bytes that were logged", style="green")
    if found.unchecked:
        write_notice(f"not checked: {found.unchecked}")


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as a text such as ``3, 5-8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _folder(directory: Path) -> Path:
    folder = directory / "audit"
    if not folder.is_dir():
        right = f"name one such as {_EXAMPLE}, or HOME/runs/RUN of a node"
        raise SpecError("audit.no-run", f"{directory}: no run directory with an audit folder; {right}")
    return folder


def _read(folder: Path, party: str | None) -> dict[str, list[dict[str, Any]]]:
    """Entries of the logs asked for, by party."""
    logs = logs_in(folder)
    if not logs:
        raise IntegrityError("audit.missing", f"{folder}: there is no audit log here")
    if party is not None and party not in logs:
        raise IntegrityError("audit.missing", f"{folder}: no log of {party!r}, there are logs of {', '.join(logs)}")
    return {name: list(read_entries(path)) for name, path in logs.items() if party in (None, name)}


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """One entry as the columns of the table."""
    peer = entry.get("recipient") or entry.get("sender") or entry.get("counterparty") or ""
    if "spend" in entry:
        more = "; ".join(
            " ".join(str(part) for part in (amount, kind, name) if part != "") for kind, name, amount in entry["spend"]
        )
    else:
        more = entry.get("code") or entry.get("purpose") or entry.get("count") or ""
    time = str(entry.get("time", ""))[11:19]  # of the day; --json has the date
    columns = (entry["line"], time, entry["event"], entry.get("kind", ""), peer)
    return tuple(str(one) for one in (*columns, entry.get("stage", ""), entry.get("bytes", ""), more))

"""Following a run: a live picture on a terminal, a line for each event elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout, write_line, write_notice, write_text
from fedcredit.errors import TransportError
from fedcredit.plain_text import plain
from fedcredit.types import COORDINATOR

if TYPE_CHECKING:
    from fedcredit.runtime.runs.operator_api import EventsReply, EventView, LineView, RunView
    from fedcredit.runtime.runs.operator_client import OperatorClient

__all__ = ["watch_run"]

_PAUSE = 1.0  # seconds between two questions
_PATIENCE = 180.0  # seconds without an answer; a coordinator that is started again is back sooner
_LINES = 10  # of the last events in the live picture
_ENDED = frozenset({"finished", "failed", "stopped"})
_CODE = re.compile(r"^(?P<text>.*) \[(?P<code>[a-z][a-z0-9.-]*)\]$", re.DOTALL)
_PATH = ("submitted", "proposing", "waiting", "running", "finished")
_MB = 1e6
_WORDS = {
    "approved": "green",
    "finished": "green",
    "pending": "yellow",
    "denied": "bold red",
    "failed": "bold red",
    "lost": "yellow",
}
_STYLES = {"finished": "bold green", "failed": "bold red", "stopped": "bold yellow", "stopping": "yellow"}


def watch_run(client: OperatorClient, run: str, *, json: bool = False) -> None:
    """Follows a run to its end, and the one that continues it.

    Args:
        client: Asks the coordinator.
        run: The run.
        json: One JSON object for each event, and one for the end.

    Raises:
        TransportError: the run failed or was stopped, or the coordinator does not answer any more.
    """
    try:
        end = _Watch(client, run, json=json).through()
        while end.state == "failed" and (following := _continuation(client, end.run)) is not None:
            if not json:
                write_notice(f"run {end.run[:12]} goes on without the missing as run {following}")
            end = _Watch(client, following, json=json).through()
    except KeyboardInterrupt:
        write_notice(f"the run goes on; watch it again: fedcredit run watch {run[:12]}")
        raise
    if end.state != "finished":
        told = _CODE.match(end.detail)
        text, code = (told["text"], told["code"]) if told else (end.detail, f"run.{end.state}")
        raise TransportError(code, f"run {end.run[:12]} {end.state}: {text or 'no reason given'}")


def _continuation(client: OperatorClient, run: str) -> str | None:
    return next((one.run for one in client.runs() if one.continues == run), None)


class _Watch:
    """One run while it is followed."""

    def __init__(self, client: OperatorClient, run: str, *, json: bool) -> None:
        self._client, self._run, self._json = client, run, json
        self._after, self._silent = 0, 0.0
        self._lines: deque[EventView] = deque(maxlen=_LINES)
        self._last: dict[str, EventView] = {}
        self._live: Live | None = None
        self._page: EventsReply | None = None

    def through(self) -> RunView:
        with ExitStack() as stack:
            console = stdout()
            if console.is_terminal and not self._json:
                self._live = stack.enter_context(Live(console=console, auto_refresh=False))
            while True:
                view, more = self._look()
                if view is not None and view.state in _ENDED and not more:
                    break
                if not more:
                    time.sleep(_PAUSE)
        if self._json:
            write_text(json.dumps({"run": view.run, "state": view.state, "detail": view.detail}))
        elif view.state == "finished":
            write_line(f"run {view.run[:12]} finished{f': {view.detail}' if view.detail else ''}", style="green")
        return view

    def _look(self) -> tuple[RunView | None, bool]:
        try:
            page = self._client.events(self._run, self._after)
        except TransportError as error:
            if not error.code.startswith("coordinator."):
                raise
            self._wait(error)
            return None, False
        self._silent = 0.0
        for event in page.events:
            self._after = event.number
            self._tell(event)
        if self._live is not None:
            self._page = page
            self._live.update(self._picture(page.run), refresh=True)
        return page.run, page.more

    def _wait(self, error: TransportError) -> None:
        """Bears with a coordinator that is being started again."""
        now = time.monotonic()
        if not self._silent:
            self._silent = now
            if self._live is None and not self._json:
                write_notice(f"{error.public}; asking again")
        if now - self._silent > _PATIENCE:
            raise error

    def _tell(self, event: EventView) -> None:
        self._lines.append(event)
        if event.party:
            self._last[event.party] = event
        if self._json:
            fields = {name: getattr(event, name) for name in event.__struct_fields__}
            write_text(json.dumps({"run": self._run, **fields}))
        elif self._live is None:
            write_line(f"{event.time}  {event.party or '-':<14} {event.event:<12} {event.text}")

    def _picture(self, run: RunView) -> Group:
        head = Text(plain(f"{run.name} ({run.model})  run {run.run[:12]}  "))
        head.append(plain(run.state), style=_STYLES.get(run.state, "bold cyan"))
        head.append(f"  {_lasting(_seconds(run.created, run.updated if run.state in _ENDED else None))}")
        traffic = None if self._page is None else self._page.traffic
        if traffic is not None:
            head.append(f"  {traffic.bytes_in / _MB:,.1f} MB relayed")
        said = Text(plain(run.detail), overflow="ellipsis", no_wrap=True)
        lines = {} if traffic is None else {one.party: one for one in traffic.lines}
        parties = Table("PARTY", "LAST", "AGO", "LINE", "WAITS FOR", box=None, pad_edge=False, header_style="bold")
        operators = sorted(set(self._last) - set(run.parties) - {COORDINATOR})
        for party in (*run.parties, *[COORDINATOR] * bool(lines or COORDINATOR in self._last), *operators):
            parties.add_row(*self._row(party, lines.get(party), ended=run.state in _ENDED))
        events = Table.grid(padding=(0, 2))
        for one in self._lines:
            text = Text(plain(one.text), overflow="ellipsis", no_wrap=True)
            row = (plain(one.time[11:19]), plain(one.party) or "-", plain(one.event))
            events.add_row(Text(row[0], style="dim"), Text(row[1]), Text(row[2]), text)
        return Group(head, _path(run.state), said, Text(), parties, Text(), events)

    def _row(self, party: str, line: LineView | None, *, ended: bool) -> tuple[Text, ...]:
        """What is known of a party: its last word, how long ago, its line to the exchange, whom it waits for."""
        last = self._last.get(party)
        word = Text("" if last is None else plain(last.event), style=_WORDS.get("" if last is None else last.event, ""))
        ago = Text("" if last is None or ended else _lasting(_seconds(last.time, None)), style="dim")
        if line is None or ended or (last is not None and last.event == "finished"):
            return Text(plain(party)), word, ago, Text(), Text()
        up = Text("up") if line.connected else Text(f"AWAY {_lasting(line.seconds)}", style="bold yellow")
        return Text(plain(party)), word, ago, up, Text(plain(line.waiting_for))


def _path(state: str) -> Text:
    """The states that a run goes through, with the one it is in."""
    line = Text()
    for number, one in enumerate(_PATH):
        line.append(" ─ " if number else "", style="dim")
        line.append(one, style="bold cyan" if one == state else "dim")
    return line


def _seconds(start: str, end: str | None) -> float:
    """From one moment to another, or to now; 0 where a text is no moment."""
    try:
        first = datetime.fromisoformat(start)
        return max(0.0, ((datetime.fromisoformat(end) if end else datetime.now(UTC)) - first).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _lasting(seconds: float) -> str:
    """A time for people: ``48 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"

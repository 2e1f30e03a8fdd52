"""Following a run: a live picture on a terminal, a line for each event elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedcredit.cli.console import stdout, write_line, write_notice, write_text
from fedcredit.errors import TransportError
from fedcredit.plain_text import plain

if TYPE_CHECKING:
    from fedcredit.runtime.runs.operator_api import EventView, RunView
    from fedcredit.runtime.runs.operator_client import OperatorClient

__all__ = ["watch_run"]

_PAUSE = 1.0  # seconds between two questions
_PATIENCE = 180.0  # seconds without an answer; a coordinator that is started again is back sooner
_LINES = 10  # of the last events in the live picture
_ENDED = frozenset({"finished", "failed", "stopped"})
_CODE = re.compile(r"^(?P<text>.*) \[(?P<code>[a-z][a-z0-9.-]*)\]$", re.DOTALL)
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
        head = Text(plain(f"run {run.run[:12]}  {run.name} ({run.model})  "))
        head.append(plain(run.state), style=_STYLES.get(run.state, "bold cyan"))
        head.append(f"  {plain(run.detail)}" if run.detail else "")
        parties = Table("PARTY", "LAST", "", box=None, pad_edge=False, header_style="bold")
        for party in (*run.parties, *sorted(set(self._last) - set(run.parties))):
            last = self._last.get(party)
            cells = ("", "") if last is None else (plain(last.event), plain(last.text))
            parties.add_row(Text(plain(party)), Text(cells[0]), Text(cells[1], overflow="ellipsis", no_wrap=True))
        events = Table.grid(padding=(0, 2))
        for one in self._lines:
            text = Text(plain(one.text), overflow="ellipsis", no_wrap=True)
            row = (plain(one.time[11:19]), plain(one.party) or "-", plain(one.event))
            events.add_row(Text(row[0], style="dim"), Text(row[1]), Text(row[2]), text)
        return Group(head, Text(), parties, Text(), events)

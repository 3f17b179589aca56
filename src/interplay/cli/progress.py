"""Progress on stderr: a live bar in a terminal, a line every few seconds elsewhere; rate and time left in both."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts towards a total.

    Args:
        what: what is being done, one or two words.
        total: how many units there are.
        unit: what one is, for the rate.
        done: how many were finished before, for a resumed job; they do not count towards the rate.
    """

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._before = self._done = done
        self._note = ""
        self._start = self._last_line = time.monotonic()
        self._live: RichProgress | None = None
        if sys.stderr.isatty():
            self._live = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._live.add_task(what, total=total, rate="", note="")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        self._print_line(final=True)

    def total(self, total: int) -> None:
        """There are `total` units after all."""
        self._total = total
        if self._live is not None:
            self._live.update(self._task, total=total)

    def update(self, done: int, note: str = "") -> None:
        """`done` units are finished; `note` is shown behind the rate."""
        self._done, self._note = done, note
        if self._live is not None:
            self._live.update(self._task, completed=done, rate=self._rate(), note=note)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line(final=False)

    def _rate(self) -> str:
        seconds = time.monotonic() - self._start
        return f"{(self._done - self._before) / seconds:.1f} {self._unit}/s" if seconds > 0 else ""

    def _print_line(self, *, final: bool) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._start
        now = self._done - self._before
        left = "" if final or not now else f", {seconds / now * (self._total - self._done):.0f} s left"
        note = f"  {self._note}" if self._note else ""
        print(f"{self._what}: {self._done}/{self._total}, {self._rate()}, {seconds:.0f} s{left}{note}", file=sys.stderr)

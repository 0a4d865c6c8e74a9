"""What a verb tells while it works: on stderr a line a stage, or each line; in a long verb's log, everything."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgecnn.errors import UserError, one_line
from edgecnn.numbers import duration
from edgecnn.progress import Stage

LOG_COLUMNS = 180
_NOTICES = 12
_TELLING = 0.1
"""Of the work: before so much is done, nothing is said of the time that is left."""


def console(stderr: bool = False) -> Console:
    """stdout, or stderr. No text is markup to it, for names and paths may look like it: what has a style is a Text."""
    stream = sys.stderr if stderr else sys.stdout
    # Where it is no terminal: tables in logs are not folded to 80.
    width = None if stream.isatty() else LOG_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False, stderr=stderr)


class Live:
    """One verb's progress. Without a log every line is shown; with one, stages alone unless `verbose`."""

    def __init__(self, log: TextIO | None = None, verbose: bool = True, clock: Callable[[], float] = time.monotonic):
        self._log, self._verbose, self._clock = log, verbose or log is None, clock
        self._began = self._group_began = clock()
        self.stages = 0
        """So many were told."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(
            *(*columns, TimeRemainingColumn()),
            console=console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, visible=False)

    def begin(self, text: str, total: int | None, visible: bool = True) -> None:
        """A new piece of work, of so many steps where that is known: as a new task, for a bar keeps a total it had."""
        self.bar.remove_task(self.task)
        self.task = self.bar.add_task(text, total=total, visible=visible)

    @property
    def elapsed(self) -> float:
        """Seconds since the verb began."""
        return self._clock() - self._began

    def tell(self, text: str) -> None:
        """A line of progress: a `Stage`, or a detail of one."""
        if isinstance(text, Stage):
            self.stages += 1
            line = self._stage_line(text)
            self._write(line)
            self._print(line if self._log is not None else one_line(text))
            self.begin(text, None, visible=self._log is not None)
            return
        self._write(f"{_clock_face(self.elapsed)}    {text}")
        if self._verbose:
            self._print(one_line(text))
        else:
            self.bar.update(self.task, description=text.strip())

    def notices(self, lines: Sequence[str]) -> None:
        """What a person should read now: shown whatever is shown of the work, but where there are many."""
        shown = lines if self._verbose else lines[:_NOTICES]
        for number, line in enumerate(lines):
            self._write(f"{_clock_face(self.elapsed)}    {line}")
            if number < len(shown):
                self._print(one_line(line))
        if len(shown) < len(lines):
            self._print(f"and {len(lines) - len(shown)} lines more: in the log")

    def keep(self, shown: RenderableType) -> bool:
        """Write a table into the log. Whether it is to be shown as well."""
        if self._log is not None:
            Console(file=self._log, width=LOG_COLUMNS, highlight=False, markup=False, emoji=False).print(shown)
        return self._verbose

    def _stage_line(self, stage: Stage) -> str:
        if not stage.done:
            self._group_began = self._clock()
            return f"{_clock_face(self.elapsed)}  {stage}"
        if stage.done < _TELLING * stage.of:
            return f"{_clock_face(self.elapsed)}  {stage}"
        left = (self._clock() - self._group_began) / stage.done * (stage.of - stage.done)
        return f"{_clock_face(self.elapsed)}  {stage} (about {duration(left)} left)"

    def _write(self, line: str) -> None:
        if self._log is not None:
            print(line, file=self._log, flush=True)

    def _print(self, line: str) -> None:
        if self.bar.live.is_started:
            self.bar.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)


_live = Live()


@contextmanager
def logged(path: Path, verbose: bool, foretold: Sequence[str] = ()) -> Iterator[Live]:
    """Everything that is told within goes to the end of the file `path`; stages, with `verbose` all, to stderr.

    `foretold`: lines on what will be done, for both, before the first stage.

    A mistake that ends it in its first stage leaves no log that was not there before.
    """
    global _live
    outer, folder_is_new, is_new = _live, not path.parent.exists(), not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {shlex.join(sys.argv)}", file=log)
        _live = Live(log, verbose)
        for line in foretold:
            print(line, file=log)
            print(one_line(line), file=sys.stderr)
        try:
            with _live.bar:
                yield _live
        except UserError:
            if is_new and _live.stages < 2:
                path.unlink(missing_ok=True)
                if folder_is_new:
                    path.parent.rmdir()
            raise
        finally:
            _live = outer


def log_beside(out: Path) -> Path:
    """The log of the folder `out`: beside it, for what is in it is listed by hash, or told to be a run."""
    return out.with_name(f"{out.name}.log") if out.name else out.resolve().with_suffix(".log")


def say(text: str) -> None:
    """A line of progress, on stderr or in the log: see `Live.tell`."""
    _live.tell(text)


def notices(lines: Sequence[str]) -> None:
    """Lines that are shown in any case, but for those that are many, and kept in the log where there is one."""
    _live.notices(lines)


def keep(shown: RenderableType) -> bool:
    """Write a table into the log where there is one. Whether it is to be shown as well."""
    return _live.keep(shown)


class Bar:
    """A progress bar on stderr; silent where stderr is not a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def start(self, total: int, text: str) -> None:
        """A new piece of work of `total` steps."""
        if self._live.bar.disable or isinstance(text, Stage):
            say(text)
        self._live.begin(text, total)

    def advance(self, steps: int = 1, status: str = "") -> None:
        """So many steps are done; `status` is how it goes just now."""
        if status:
            self._live.bar.update(self._live.task, description=status)
        self._live.bar.advance(self._live.task, steps)

    def text(self, text: str) -> None:
        """A remark, such as an epoch's losses."""
        say(text)

    def count(self, done: int, of: int) -> None:
        """For callers that report (done, of)."""
        self._live.bar.update(self._live.task, completed=done, total=of, visible=True)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar that is gone afterwards, also after an error."""
    if _live.bar.live.is_started:
        yield Bar(_live)
        return
    with _live.bar:
        try:
            yield Bar(_live)
        finally:
            _live.bar.update(_live.task, visible=False)


def _clock_face(seconds: float) -> str:
    """A length of time as 0:07, 12:30 or 1:02:03, in at least five characters."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:>2}:{rest:02}"

"""Progress in a terminal, of a render or of reading files: a line that redraws itself, or plain lines without one."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from .progress import Progress, words_for_reading, words_for_seconds

_BAR_CELLS = 24
_LINE_SECONDS = 10.0  # between two plain lines of one clip, or of one file
_REDRAW_SECONDS = 0.2


class _Line:
    """One line of a stream: in a terminal it redraws itself, elsewhere each state of it is a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.terminal = stream, stream.isatty()
        self._drawn = 0

    def write(self, text: str) -> None:
        """A line that stays."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def draw(self, text: str) -> None:
        """A state of the line in a terminal."""
        self.stream.write("\r" + text.ljust(self._drawn))
        self.stream.flush()
        self._drawn = len(text)

    def clear(self) -> None:
        if self._drawn:
            self.stream.write("\r" + " " * self._drawn + "\r")
            self.stream.flush()
            self._drawn = 0


class ProgressPrinter:
    """Prints Progress to a stream; `clear` before anything else is printed there."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._line, self._quiet = _Line(stream), quiet
        self._last_line, self._last_at = (0, ""), 0.0

    def __call__(self, progress: Progress) -> None:
        if self._quiet:
            return
        if self._line.terminal:
            self._draw(progress)
        elif self._is_due(progress):
            self._line.write(describe(progress))

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self.clear()
        if not self._quiet:
            self._line.write(text)

    def clear(self) -> None:
        self._line.clear()

    def _draw(self, progress: Progress) -> None:
        full = round(progress.fraction * _BAR_CELLS)
        line = f"[{'=' * full}{'-' * (_BAR_CELLS - full)}] {describe(progress)}"
        self._line.draw(line[: max(20, shutil.get_terminal_size().columns - 1)])

    def _is_due(self, progress: Progress) -> bool:
        """Each new phase of a clip at once, what goes on within one now and then."""
        line, now = (progress.clip, progress.phase), time.monotonic()
        if line == self._last_line and now - self._last_at < _LINE_SECONDS:
            return False
        self._last_line, self._last_at = line, now
        return True


class ReadingShown:
    """How far a long reading has come: each new file at once, what goes on within one now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._line = _Line(stream)
        self._file, self._said_at = "", 0.0

    def __call__(self, file: str, done: int, *, size: int) -> None:
        now, wait = time.monotonic(), _REDRAW_SECONDS if self._line.terminal else _LINE_SECONDS
        if file == self._file and now - self._said_at < wait:
            return
        self._file, self._said_at = file, now
        (self._line.draw if self._line.terminal else self._line.write)(f"reading {words_for_reading(file, done, size)}")

    def clear(self) -> None:
        self._line.clear()


def describe(progress: Progress) -> str:
    """One line: " 43 %  clip 3 of 7  step 12 of 30  1.90 s/step  4 min 10 s left"."""
    words = [f"{progress.fraction:4.0%}"]
    if progress.clip:
        words.append(f"clip {progress.clip} of {progress.clips}")
    if progress.phase == "sampling":
        words.append(f"step {progress.step} of {progress.steps}")
        words.append(f"{progress.seconds_per_step:.2f} s/step")
    else:
        words.append(" ".join(filter(None, (progress.phase, progress.note))))
    if progress.eta_seconds is not None and progress.phase != "done":
        words.append(f"{words_for_seconds(progress.eta_seconds)} left")
    return "  ".join(words)

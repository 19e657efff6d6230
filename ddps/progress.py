"""A progress bar on stderr, drawn only on a terminal."""

import sys
import time


class Progress:
    """Counts items; with no terminal, or `shown=False`, it prints nothing.

    Args:
        total: number of items.
        label: what is counted.
        shown: whether to draw at all.
    """

    def __init__(self, total: int, label: str, shown: bool = True):
        self.total, self.label = total, label
        self.shown = shown and total > 1 and sys.stderr.isatty()
        self.done, self.started, self.drawn = 0, time.monotonic(), 0.0

    def advance(self) -> None:
        """One more item is done."""
        self.done += 1
        now = time.monotonic()
        if not self.shown or (now - self.drawn < 0.1 and self.done < self.total):
            return
        self.drawn = now
        filled = 30 * self.done // max(1, self.total)
        left = (now - self.started) / self.done * (self.total - self.done)
        end = "\n" if self.done == self.total else ""
        bar = "#" * filled + "." * (30 - filled)
        print(
            f"\r{self.label} [{bar}] {self.done}/{self.total}, {left:.0f} s left ", end=end, file=sys.stderr, flush=True
        )

"""Work on the CPU for which a training step must not wait."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Deferred(Generic[Item]):
    """Keeps what steps computed, on its device, and hands it over now and then: reading a value waits for an accelerator.

    Args:
        interval: Items between two times.
        consume: What to do with them.
    """

    def __init__(self, interval: int, consume: Callable[[Sequence[Item]], None]) -> None:
        self.interval, self.consume = interval, consume
        self._kept: list[Item] = []

    def add(self, item: Item) -> None:
        """Keep an item, and hand over all if it is time."""
        self._kept.append(item)
        if len(self._kept) >= self.interval:
            self.flush()

    def flush(self) -> None:
        """Hand over what is left."""
        kept, self._kept = self._kept, []
        if kept:
            self.consume(kept)

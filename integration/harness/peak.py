"""The maximum of what is measured while something runs."""

import threading
from collections.abc import Callable


class Peak:
    """The maximum of a number while something runs."""

    def __init__(self, read: Callable[[], float]):
        self._read = read
        self._done = threading.Event()
        self.highest = read()

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.highest = max(self.highest, self._read())

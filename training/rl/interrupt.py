"""Stopping a job from the keyboard without losing its work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopOnSignal:
    """While entered, the first SIGINT or SIGTERM asks to stop, the second one interrupts at once.

    Outside the main thread, where Python handles no signals, it does nothing.

    Args:
        on_request: called at the first signal, to tell the user.

    Attributes:
        requested: the number of the signal that asked to stop; None as long as none did.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self.requested: int | None = None
        self._on_request = on_request
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = number
        self._on_request()

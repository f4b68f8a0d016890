"""The first SIGTERM has a live source give no more, so that the run ends well; the second one ends the run at once."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from taktline._run.reader import Reader


class Draining:
    """Catches SIGTERM from its making until `end`, where it is made in the main thread: no other may. `seconds`: after
    which what is under way is not waited for any more, None: never; then, and at a second signal, SystemExit is raised."""

    def __init__(self, reader: Reader, seconds: float | None) -> None:
        self._reader = reader
        self._seconds = seconds
        self._process = os.getpid()
        self._caught = self._over = self._hurried = False
        self._timer: threading.Timer | None = None
        self._guard = threading.Lock()
        self._before: Any = None
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not None:
            self._before = signal.signal(signal.SIGTERM, self._catch)

    def end(self) -> None:
        """The run is over. May be called again, and from any thread."""
        with self._guard:
            self._over = True
        if self._timer is not None:
            self._timer.cancel()
        ours = self._before is not None and os.getpid() == self._process
        if ours and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGTERM) == self._catch:  # else somebody has set another one meanwhile
                signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _catch(self, number: int, frame: Any) -> None:
        if self._over or os.getpid() != self._process:
            if not self._hurried:  # it is meant for whoever had it before: this run was closed by another thread
                signal.signal(number, self._before or signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self._caught:
            raise SystemExit(128 + number)
        self._caught = True
        self._reader.drain()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._hurry)
            self._timer.daemon = True
            self._timer.start()

    def _hurry(self) -> None:
        """The time is over: end what the main thread still does, as a second signal would."""
        with self._guard:  # so that no signal is sent once the run is over, and nobody catches it
            if not self._over:
                self._hurried = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

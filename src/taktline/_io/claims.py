"""Which journal's run writes to a URL, as far as this user knows on this host: no store tells. What others do, or the same
user elsewhere, is not seen."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable

from taktline._files import is_still, lock, private
from taktline._signals import pass_on
from taktline.errors import LineError


class Claim:
    """A file among the temporary ones that names the journal, and is locked while its run lasts. `part_of`: where the run
    of a journal keeps what goes to the URL."""

    def __init__(self, url: str, journal: str, part_of: Callable[[str], str]) -> None:
        self._url = url
        self._journal = journal
        self._part_of = part_of
        known = hashlib.sha256(os.fsencode(url)).hexdigest()[:24]
        self._path = os.path.join(tempfile.gettempdir(), f"taktline-{os.geteuid()}-{known}.journal")
        self._file: int | None = None

    def take(self) -> None:
        """Raises BlockingIOError where another run has it, LineError where one of another journal can still go on."""
        try:
            file = self._locked()
        except BlockingIOError:
            raise
        except OSError as error:  # there is no place for it, or somebody else has that name: nothing can be told
            pass_on(error)
            return
        try:
            owner = os.fsdecode(os.pread(file, 1 << 16, 0))
            if owner not in ("", self._journal) and os.path.exists(owner) and _holds(part := self._part_of(owner)):
                raise LineError(
                    f"an unfinished run with the journal {owner!r} is writing {self._url!r}, and can go on: end it first, or "
                    f"delete {part!r}, what it has written so far, to give it up"
                )
            os.ftruncate(file, 0)
            os.pwrite(file, os.fsencode(self._journal), 0)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _locked(self) -> int:
        while True:
            file = private(self._path)
            try:
                try:
                    lock(file)
                except BlockingIOError:
                    # The journal is this run's alone: whoever has the claim is an attempt that it was taken from.
                    if os.fsdecode(os.pread(file, 1 << 16, 0)) != self._journal:
                        raise
                    if is_still(file, self._path):
                        os.unlink(self._path)
                if is_still(file, self._path):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the run that had it has ended, and taken it away

    def release(self, *, done: bool = False) -> None:
        """The run is over for now; `done`: for good. May be called again."""
        file, self._file = self._file, None
        if file is None:
            return
        if done and is_still(file, self._path):
            os.unlink(self._path)
        fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has it too
        os.close(file)


def _holds(part: str) -> bool:
    try:
        return os.path.getsize(part) > 0
    except OSError as error:
        pass_on(error)
        return False

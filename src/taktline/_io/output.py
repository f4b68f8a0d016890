"""Bytes on their way to a file that appears only whole, to a URL, or to what takes them at once."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import mmap
import os
import re
import secrets
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from taktline._files import is_still, lock, private, put, sync_folder, umask, write_whole
from taktline._io import place, remote
from taktline._io.claims import Claim
from taktline._io.deposits import Deposit
from taktline._io.opening import BUFFER_BYTES, STANDARD_STREAM, packing_of
from taktline._io.packing import BLOCK_BYTES, packer
from taktline._io.pieces import Pieces
from taktline._signals import pass_on
from taktline.abc import Sink
from taktline.errors import InUse, LineError, OutputLost, SinkError

LONG_NAME = 220  # bytes; a part file's name is somewhat longer, and 255 are allowed


class Output:
    """Bytes on their way to where they are to be: into a file that appears under its name only at `commit`, or into what
    takes them at once (a device, a pipe, standard output).

    A run without a journal writes into a part file with a name of its own, after `open`. One with a journal calls
    `begin` or `resume` in place of it: its part file stands beside the target under a name that a later process finds.
    What goes to a URL waits as such a file among the temporary ones until it is whole, with a journal at a URL as objects
    beside that: a store never sees half of it.
    """

    def __init__(self, target: str | IO[bytes], level: int | None = None) -> None:
        self._target = place.named(target, 1) if isinstance(target, str) else target
        named = target if isinstance(target, str) else getattr(target, "name", None)  # a number where it has none
        self.name = remote.shown(named) if isinstance(named, str) else "a stream"
        self._place: place.Target | None = None  # of a local path
        self._part: str | None = None
        self._opened_in = 0  # process
        self._stays = False  # the part file, after this process
        self._journal: str | None = None  # that tells of the part file
        self._claim_to_url: Claim | None = None  # against other journals
        self._pieces: Pieces | None = None  # of what goes to a URL, where the journal is at one
        self._file: Any = None
        self._owned = False  # the stream was opened here
        self._done_at: dict[str, Any] = {}  # position
        self._pack: Callable[[bytes], bytes] | None = None
        self._rest = bytearray()  # of a compressed file: the text of the block that is not full yet
        self._packed = 0  # bytes of the blocks before it
        if isinstance(self._target, str) and self._target != STANDARD_STREAM:
            self._pack = packer(packing_of(self._target), level)
            if remote.is_url(self._target):
                remote.check_target(self._target)
            else:
                self._target = place.absolute(self._target)
                self._place = place.target(self._target)

    @property
    def is_file(self) -> bool:
        """Whether it appears as a whole."""
        return (
            isinstance(self._target, str)
            and self._target != STANDARD_STREAM
            and not (self._place and self._place.stream)
        )

    def paths(self) -> list[str]:
        """The path or URL that is written, for who must know that nothing else uses it."""
        named = isinstance(self._target, str) and self._target != STANDARD_STREAM
        return [str(self._target)] if named and not (self._place and self._place.descriptor is not None) else []

    def known_as(self) -> str:
        """Where the bytes go, whatever the folder is that the process is in."""
        return self._place.path if self._place is not None else str(self.name)

    def open(self) -> None:
        """Raises SinkError where the file cannot be made, LineError where it must not be."""
        self._start(stays=False)
        try:
            if not isinstance(self._target, str):
                self._file = self._target
            elif self._target == STANDARD_STREAM:
                if sys.stdout is None:
                    raise LineError("standard output is closed: there is nowhere to write to; name a file")
                self._file = sys.stdout.buffer
            elif self.is_file:
                self._new_part()
            else:
                self._file, self._owned = self._stream(), True
        except OSError as error:
            self.abort()
            raise self._failed(error) from error

    def _start(self, *, stays: bool) -> None:
        self._rest, self._packed, self._stays, self._opened_in = bytearray(), 0, stays, os.getpid()
        if self._place is not None:  # it may have become something else since it was named
            self._place = place.target(str(self._target))

    def _stream(self) -> Any:
        assert self._place is not None
        number = self._place.descriptor
        opened = os.dup(number) if number is not None else os.open(self._place.path, os.O_WRONLY | os.O_NOCTTY)
        return os.fdopen(opened, "wb", buffering=BUFFER_BYTES)

    def _new_part(self) -> None:
        folder, name = self._part_place()
        stem = f"{name.removesuffix('part')}taktline-"
        sweep(folder, re.compile(re.escape(stem) + r"[0-9a-f]{8}\.part"))
        while self._part is None:
            part = os.path.join(folder, f"{stem}{secrets.token_hex(4)}.part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with suppress(FileExistsError):
                self._file = os.fdopen(os.open(part, flags, 0o600), "wb", buffering=BUFFER_BYTES)
                self._part = part
                with suppress(OSError):  # a file system without locks: no other run can take it away either
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(self._file.fileno()).st_nlink:  # swept before it was locked
                    self._part = None
        if self._place is not None:
            place.check_owner(self._place.path)

    def _take_over(self) -> None:
        """Let the file be seen by whom its name lets see it: until it has that, it is this user's alone."""
        if self._place is not None:
            os.fchmod(self._file.fileno(), 0o666 & ~umask())
            place.take_over(self._file.fileno(), self._place.path)

    def write(self, data: bytes | memoryview | Deposit) -> None:
        """Raises SinkError where the bytes cannot be written."""
        try:
            if isinstance(data, Deposit):
                if self._pack is None and self._part is not None and self._pieces is None:
                    data.append_to(self._file)
                    return
                data = data.read()
            if self._pack is not None:
                self._write_packed(data)
            else:
                self._file.write(data)
            if self._part is None:
                self._file.flush()  # somebody may be reading along
        except BrokenPipeError as error:
            if self._owned:
                raise self._failed(error) from error
            raise
        except OSError as error:
            raise self._failed(error) from error

    def _write_packed(self, data: bytes | memoryview) -> None:
        # Blocks end after so many bytes of text, whatever the batches were, and each is packed in one go: equal results
        # make equal files, however often the run was stopped in between.
        assert self._pack is not None
        rest = self._rest
        rest += data
        if len(rest) < BLOCK_BYTES:
            return
        with memoryview(rest) as text:
            for at in range(0, len(text) - BLOCK_BYTES + 1, BLOCK_BYTES):
                block = self._pack(bytes(text[at : at + BLOCK_BYTES]))
                self._file.write(block)
                self._packed += len(block)
        del rest[: len(rest) - len(rest) % BLOCK_BYTES]

    def commit(self) -> None:
        """All is written: give the file its name. Raises SinkError where the last bytes cannot be written."""
        try:
            if self._pack is not None and (self._rest or not self._packed):
                self._file.write(self._pack(bytes(self._rest)))
            if self._pieces is not None:
                self._pieces.publish()
            elif self._part is not None:
                self._file.flush()
                self._take_over()
                os.fsync(self._file.fileno())
                self._publish(self._part, str(self._target))
                self._file.close()  # only now, since it holds the lock that keeps other runs away from the part file
            elif self._owned:
                self._owned = False
                self._file.close()
        except OSError as error:
            self.abort()
            raise self._failed(error) from error

    def _publish(self, part: str, target: str) -> None:
        if not is_still(self._file.fileno(), part):
            raise SinkError(
                f"what was written for {self.name!r} was taken away or replaced by another program while the run was at work",
                path=str(self.name),
            )
        if self._place is not None:
            put(part, self._place.path)
        else:
            if not self._stays:
                self._part = None  # it is whole now: where the store is away, it is kept for another try
            remote.upload(part, target)
            if not self._stays:
                os.unlink(part)
        self._part = None

    def abort(self) -> None:
        """Leave nothing behind. May be called again."""
        part = self._part
        self.suspend()
        if part is not None and os.getpid() == self._opened_in:
            _take_away(part)  # or it has its name already, and the folder could not be synced

    def _failed(self, error: OSError) -> SinkError:
        if not self.is_file:
            then = "What was written before is there"
        elif self._stays:
            then = "The journal can still go on from the part of it"
        else:
            then = "No half file was left behind"
        return SinkError(f"{self.name!r} cannot be written: {error.strerror or error}. {then}.", path=self.name)

    # --- with a journal ---

    def begin(self) -> None:
        """`open`, with a part file that stays until `commit`. Raises SinkError."""
        if self._pieces is not None:
            self._start(stays=True)
            self._pieces.begin()
            self._file = self._pieces
        elif self.is_file:
            self._take(fresh=True)
        else:
            self.open()

    def position(self) -> dict[str, Any]:
        """How far it is written, all of that safe against a power cut. Raises SinkError."""
        inode, end = 0, self._packed
        if self._part is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
                known = os.fstat(self._file.fileno())
            except OSError as error:
                raise self._failed(error) from error
            inode, end = known.st_ino, self._packed if self._pack is not None else known.st_size
        rest = base64.b64encode(zlib.compress(self._rest, 1)).decode() if self._rest else ""
        pieces = {}
        if self._pieces is not None:
            pieces, end = {"pieces": self._pieces.save()}, self._pieces.length
        return {"bytes": end, "inode": inode, "rest": rest, "part": self._part, **pieces}

    def resume(self, position: dict[str, Any]) -> None:
        """Go on behind `position`. Raises OutputLost where the part file is not there any more, or shorter."""
        end = position.get("bytes", 0)
        if self._pieces is not None:
            self._start(stays=True)
            self._pieces.resume(position["pieces"])
            self._file = self._pieces
        elif not self.is_file:
            self.open()
        else:
            self._take(fresh=False)
            if os.fstat(self._file.fileno()).st_size < end:
                self.suspend()
                raise self._gone("is shorter than the journal says")
            self._file.truncate(end)
            self._file.seek(end)
        self._packed = end
        rest = position.get("rest")
        self._rest = bytearray(zlib.decompress(base64.b64decode(rest)) if rest else b"")

    def so_far(self) -> Any:
        """All that is written of a file with a journal, as bytes that may be looked at."""
        if self._pieces is not None:
            return self._pieces.so_far()
        with open(self._part_name(), "rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def take_back(self) -> None:
        """What `commit` has made visible, if it came to that, is the part file again."""
        if self._place is not None:
            with suppress(FileNotFoundError):
                os.replace(self._place.path, self._part_name())

    def finished(self, position: dict[str, Any]) -> bool:
        """Whether `commit` was done behind `position`: the file is the part file under its new name."""
        # An object tells nothing of the part file that it was. So that stays until the journal says that it is done, and a
        # run that was killed before puts it there once more.
        if not self.is_file or self._place is None or os.path.exists(self._part_name()):
            return False
        try:
            there = os.stat(self._place.path)
        except FileNotFoundError as error:
            pass_on(error)
            return False
        return bool(there.st_ino == position["inode"] and there.st_size >= position["bytes"])

    def is_gone(self, position: dict[str, Any]) -> str:
        """Why what `commit` has made visible is not there any more; empty where it is."""
        if not self.is_file or "bytes" not in position:
            return ""
        self._done_at = position
        if self._place is None:
            gone = not remote.may_be_there(str(self._target))
        else:
            gone = not os.path.exists(self._place.path)
            if not gone and position["bytes"] and not os.path.getsize(self._place.path):
                return f"{self.name!r} was written whole, and is empty now"
        return f"{self.name!r} was written whole, and is not there any more" if gone else ""

    def noted(self) -> None:
        """The journal has noted that `commit` was done."""
        if not self.is_file:
            return
        if self._pieces is not None:
            self._pieces.clear(self._done_at.get("pieces"))
        elif self._place is None:
            _take_away(self._part_name())
            self._let_go(done=True)
        elif self._owner(self._part_name()) == self._journal:
            _take_away(_owners(self._part_name()))

    def forget(self, position: dict[str, Any]) -> None:
        """Another run begins in the place of one that has come to `position`: take away its part file, where it is that
        run's."""
        if self._pieces is not None and "pieces" in position:
            self._pieces.clear(position["pieces"])
        part = str(position.get("part") or "")
        if not part.endswith(".part") or self._owner(part) not in (self._journal, None):
            return
        _take_away(part)
        _take_away(_owners(part))

    def suspend(self) -> None:
        """Let go of the part file and leave it there. May be called again."""
        if self._pieces is not None:
            self._pieces.suspend()
            return
        part, self._part = self._part, None
        owned, self._owned = self._owned, False
        self._let_go()
        if (part is None and not owned) or self._file is None:
            return
        if os.getpid() != self._opened_in:
            # A fork of the process that writes: what it holds in its buffer goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            return
        try:
            self._file.close()
        except OSError as error:  # what could not be written comes after the last position: it is made again
            pass_on(error)

    def _let_go(self, *, done: bool = False) -> None:
        if self._claim_to_url is not None and os.getpid() == self._opened_in:
            self._claim_to_url.release(done=done)

    def beside(self, journal: str, *, within: str = "", attempt: str = "") -> None:
        """The journal that is to know of the part file. `within`, `attempt`: as of `Pieces`."""
        self._journal = place.from_here(journal)
        if remote.is_url(journal) and isinstance(self._target, str) and remote.is_url(self._target):
            self._pieces = Pieces(self._target, journal, within=within, attempt=attempt)

    def _part_name(self) -> str:
        return os.path.join(*self._part_place())

    def _part_place(self) -> tuple[str, str]:
        """Folder and name of the part file that a later process finds."""
        if self._place is not None:
            folder, name = os.path.split(self._place.path)
            if len(os.fsencode(name)) > LONG_NAME:
                name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
            return folder, f".{name}.part"
        if self._journal is not None:  # wherever the journal goes, what it tells of goes with it
            return os.path.split(_part_beside(self._journal))
        known = hashlib.sha256(str(self._target).encode()).hexdigest()[:12]  # two shops may have an orders.jsonl each
        return tempfile.gettempdir(), f".{os.path.basename(self.name)}.{known}.part"

    def _take(self, *, fresh: bool) -> None:
        self._start(stays=True)
        try:
            self._open_part(fresh)
        except BaseException:
            self._let_go()
            raise

    def _open_part(self, fresh: bool) -> None:
        part = self._part_name()
        try:
            if self._place is None and self._journal is not None:
                self._claim_to_url = Claim(str(self.name), self._journal, _part_beside)
                self._claim_to_url.take()
            descriptor = self._locked(part, fresh)
        except FileNotFoundError as error:
            raise self._failed(error) if fresh else self._gone("is not there any more") from error
        except BlockingIOError:
            raise InUse(
                f"another run is writing {self.name!r}: wait until it has ended, or name another file", path=self.name
            ) from None
        except OSError as error:
            raise self._failed(error) from error
        self._file = os.fdopen(descriptor, "r+b", buffering=BUFFER_BYTES)
        try:
            self._claim(part, descriptor)
            if self._place is not None:
                place.check_owner(self._place.path)
            if fresh:
                self._file.truncate(0)
                sync_folder(part)
        except OSError as error:
            self._file.close()
            raise self._failed(error) from error
        except BaseException:
            self._file.close()
            raise
        self._part = part

    def _locked(self, part: str, fresh: bool) -> int:
        """The part file, and this run the only one that has it. Raises OSError."""
        while True:
            descriptor = private(part, make=fresh)
            try:
                try:
                    lock(descriptor)
                except BlockingIOError:
                    if not self._is_own(part):
                        raise
                    # The journal is this run's alone: whoever has the part is an attempt that it was taken from, and must
                    # not write into what this one goes on with.
                    return _copied(descriptor, part)
                if is_still(descriptor, part):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the run that had it has given it its name, and this one must not write into that

    def _is_own(self, part: str) -> bool:
        """Whether this run's journal is the one that tells of a part file."""
        return self._journal is not None and (self._place is None or self._owner(part) == self._journal)

    def _claim(self, part: str, descriptor: int) -> None:
        """Note beside a part file which journal tells of it. Raises LineError where that is another one, which can still
        go on with it."""
        if self._journal is None or self._place is None:  # that one's is beside its own journal
            return
        owner = self._owner(part)
        if owner == self._journal:
            return
        if owner is not None and os.fstat(descriptor).st_size and remote.may_be_there(owner):
            raise LineError(
                f"an unfinished run with the journal {owner!r} is writing {self.name!r}, and can go on: end it first, or "
                f"delete {part!r}, what it has written so far, to give it up"
            )
        write_whole(_owners(part), f"{self._journal}\n".encode("utf-8", "surrogateescape"))

    def _owner(self, part: str) -> str | None:
        """The journal that tells of a part file; None where none is known."""
        try:
            with open(_owners(part), encoding="utf-8", errors="surrogateescape") as file:
                return file.read().rstrip("\n")
        except FileNotFoundError as error:
            pass_on(error)
            return None

    def _gone(self, why: str) -> OutputLost:
        return OutputLost(
            path=str(self.name), why=f"the part of {self.name!r} that was written, {self._part_name()!r}, {why}"
        )


def sweep(folder: str, ours: re.Pattern[str]) -> None:
    """Take away the part files of such names that killed runs have left: only such as are this user's own, and that nobody
    is writing."""
    for name in filter(ours.fullmatch, os.listdir(folder)):
        with suppress(OSError):  # it is gone, or somebody else's, or locked: it stays
            path = os.path.join(folder, name)
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                known = os.fstat(file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(known.st_mode) and known.st_uid == os.geteuid() and known.st_nlink == 1:
                    os.unlink(path)
            finally:
                os.close(file)


def _copied(file: int, part: str) -> int:
    """A locked copy of a part file in its place, whose descriptor is closed. Raises OSError."""
    name = f"{part}.new"
    copy = private(name)
    try:
        lock(copy)
        os.ftruncate(copy, 0)
        at = 0
        while sent := os.sendfile(copy, file, at, 1 << 30):
            at += sent
        os.fsync(copy)
        put(name, part)
    except BaseException:
        os.close(copy)
        raise
    os.close(file)
    return copy


def _owners(part: str) -> str:
    """The file beside a part file that names its journal."""
    return f"{part}.journal"


def _part_beside(journal: str) -> str:
    """Where what goes to a URL waits, of a run with this journal."""
    folder, name = os.path.split(journal)
    return os.path.join(folder, f".{name}.part")


def _take_away(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


class IntoOutput(Sink):
    """What sinks of one file have in common: the results are bytes on their way into `_output`."""

    _output: Output

    def _begin(self) -> None:
        """Be as it was before the first result."""
        raise NotImplementedError

    def describe(self) -> str:
        return str(self._output.name)

    def writes(self) -> list[str]:
        return self._output.paths()

    def open(self) -> None:
        self._begin()
        self._output.open()

    def abort(self) -> None:
        self._output.abort()

"""A folder that is made beside its place and put there as a whole: locked while it is made, taken away where nobody will go
on with it, and found again by the journal that can."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from taktline._files import lock, refusal, sync_folder, umask, write_whole
from taktline._io import place, remote
from taktline._io.output import LONG_NAME, Output
from taktline._signals import pass_on
from taktline.errors import InUse, LineError, OutputLost, SinkError

PART_NAME = re.compile(r"part-(\d{5,})\.")  # how what runs write begins
MOVES = ".moves"
TRIES = 10
ROOM = 4000  # bytes that a journal has for the numbers of parts
EXCHANGE, HERE = 2, -100  # of renameat2


class PartsHere:
    """The parts in one folder, on this machine."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def output(self, name: str, level: int | None) -> Output:
        """The part of this name, to be written."""
        return Output(os.path.join(self._folder, name), level)

    def ended(self, name: str, output: Output) -> None:
        """The part of this name is written: here, where files are put in place at the end, nothing is left to do."""

    def only_up_to(self, number: int) -> None:
        """Take away what came behind the part of this number."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                found = name.lstrip(".").removeprefix("part-").partition(".")[0]
                if found.isdecimal() and int(found) > number:
                    os.unlink(os.path.join(self._folder, name))


class Building:
    def __init__(self, path: str, mode: str | None, suffix: str = "") -> None:
        self._named = path
        self._suffix = suffix  # of its parts
        try:
            self.path = place.behind_links(place.absolute(path.rstrip(os.sep) or os.sep))
        except OSError as error:
            raise refusal(error, f"{path!r} cannot be written", path) from error
        self._mode = mode
        above, name = os.path.split(self.path)
        if not os.path.isdir(above):
            raise LineError(f"there is no folder {above!r} to make {name!r} in; make it first")
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise LineError(f"{path!r} is there and is no folder; name another one for the parts")
        if len(os.fsencode(name)) > LONG_NAME:
            name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
        self._stem = os.path.join(above, f".{name}.")
        self.folder = self._taken_up = ""  # in which it is made, and was made so far
        self._newest: int | None = None  # note of how far it is
        self.known = 0  # number of that one, which it keeps when it is put in its place
        self._lock: int | None = None
        self._deposits = ""  # folder beside it, for what workers on other machines leave for it
        self._deposits_lock: int | None = None
        self._opened_in = 0  # process
        self._journal: str | None = None
        self._made: dict[str, Any] | None = None  # what this process has put in its place

    # --- begin ---

    def open(self) -> None:
        """For a run that nobody goes on with. Raises LineError, SinkError."""
        self._check()
        self._sweep()
        with self._telling():
            self._make("taktline-{}.parts")
            self._take()

    def begin(self, run: str) -> None:
        """For a run with a journal, from the start."""
        self._check()
        self._sweep()
        self.folder = f"{self._stem}parts"
        with self._telling():
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            if not self._take():
                self._make("parts-{}")
                self._take()
            self._claim()
            for name in os.listdir(self.folder):
                _take_away(os.path.join(self.folder, name))
            sync_folder(self.folder)

    def take_up(self, run: str, position: dict[str, Any]) -> None:
        """To go on with what such a run has made. Raises OutputLost where it is not there any more."""
        self._sweep()
        self.folder = self._taken_up = os.path.join(os.path.dirname(self.path), position["name"])
        if not os.path.isdir(self.folder):
            raise OutputLost(
                path=self.path,
                why=f"the parts of {self._named!r} that were written, {self.folder!r}, are not there any more",
            )
        with self._telling():
            if not self._take():
                self._make("parts-{}")
                self._take()
                self._copy()

    def _make(self, name: str) -> None:
        self.folder = self._new_folder(name)

    def _new_folder(self, name: str) -> str:
        """A folder of a name that nobody has."""
        while True:
            folder = self._stem + name.format(secrets.token_hex(4))
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
                return folder

    @property
    def is_open(self) -> bool:
        """Whether a run writes here now; not where what it was to write is there already."""
        return self._lock is not None

    def deposits(self) -> str:
        """A folder beside it, which is taken away at the end, or by the next run where this one is killed."""
        with self._telling():
            self._deposits = self._new_folder("taktline-{}.parts")
            self._deposits_lock = os.open(self._deposits, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            lock(self._deposits_lock)
        return self._deposits

    def _end_deposits(self) -> None:
        held, self._deposits_lock = self._deposits_lock, None
        if held is None:
            return
        os.close(held)
        if os.getpid() != self._opened_in:
            return
        for _ in range(TRIES):  # a worker that was given up may still be writing there
            shutil.rmtree(self._deposits, ignore_errors=True)
            if not os.path.isdir(self._deposits):
                break

    def make(self, name: str) -> None:
        """A folder inside. Raises SinkError where what it is in was taken away, as from an attempt that is over."""
        with self._telling():
            at = self.folder
            os.stat(at)
            for part in name.split("/") if name else ():
                at = os.path.join(at, part)
                with suppress(FileExistsError):
                    os.mkdir(at)

    def _copy(self) -> None:
        """What an earlier attempt has written, which may still be at work there: it must not write into what this one goes
        on with. Whole parts have no need of that."""
        for at, folders, names in os.walk(self._taken_up):
            here = os.path.join(self.folder, os.path.relpath(at, self._taken_up))
            for name in folders:
                os.mkdir(os.path.join(here, name))
            for name in names:
                put = shutil.copyfile if name.startswith(".") else os.link
                put(os.path.join(at, name), os.path.join(here, name))
        _sync(self.folder)

    def beside(self, journal: str) -> None:
        self._journal = place.from_here(journal)

    def _check(self) -> None:
        try:
            there = os.listdir(self.path)
        except FileNotFoundError as error:
            pass_on(error)
            return
        except OSError as error:
            raise refusal(error, f"{self._named!r} cannot be written", self.path) from error
        if not there:
            return
        if self._mode is None:
            raise LineError(
                f'the folder {self._named!r} is there already: mode="replace" puts the new parts in its place, '
                'mode="append" adds them to those that are there'
            )
        if self._mode == "append" and (other := next(_parts_but(self.path, self._suffix), None)) is not None:
            raise LineError(
                f'mode="append" would put {self._suffix} beside {other!r}: give the format that is there, or another folder'
            )
        if self._mode == "replace" and (strange := next(_strange(self.path), None)) is not None:
            raise LineError(
                f'mode="replace" would take away {strange!r}, which no run has written; name another folder, or empty it'
            )

    def _take(self) -> bool:
        """Let this process be the only one that writes there. False where an earlier attempt at the same run still has it,
        from which the journal was taken; raises InUse where another run has it."""
        self._opened_in = os.getpid()
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.known = os.fstat(self._lock).st_ino
        try:
            lock(self._lock)
        except BlockingIOError:
            self.let_go()
            if self._journal is not None and self._owner() == self._journal:
                return False
            raise InUse(
                f"another run is writing {self._named!r}: wait until it has ended, or name another folder",
                path=self.path,
            ) from None
        return True

    def _claim(self) -> None:
        """Note beside it whose it is. Raises LineError where another journal can still go on with it."""
        if self._journal is None or (owner := self._owner()) == self._journal:
            return
        if owner is not None and os.listdir(self.folder) and remote.may_be_there(owner):
            self.let_go()
            raise LineError(
                f"an unfinished run with the journal {owner!r} is writing {self._named!r}, and can go on: end it first, or "
                f"delete {self.folder!r}, what it has written so far, to give it up"
            )
        write_whole(self._owners(), f"{self._journal}\n".encode("utf-8", "surrogateescape"))

    def _owners(self) -> str:
        return f"{self._stem}parts.journal"

    def _owner(self) -> str | None:
        try:
            with open(self._owners(), encoding="utf-8", errors="surrogateescape") as file:
                return file.read().rstrip("\n")
        except FileNotFoundError as error:
            pass_on(error)
            return None

    def _sweep(self) -> None:
        """Take away what killed runs have left, where it is this user's and nobody is writing there."""
        above, stem = os.path.split(self._stem)
        ours = re.compile(re.escape(stem) + r"taktline-[0-9a-f]{8}\.parts")
        for name in filter(ours.fullmatch, os.listdir(above)):
            path = os.path.join(above, name)
            with suppress(OSError):  # it is gone, or somebody else's, or locked: it stays
                found = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(found).st_uid == os.geteuid():
                        shutil.rmtree(path)
                finally:
                    os.close(found)

    # --- parts ---

    def parts(self, inside: str) -> PartsHere:
        """Where the parts of a folder inside are; "" is the folder itself."""
        return PartsHere(os.path.join(self.folder, inside) if inside else self.folder)

    # --- notes for who goes on ---

    def note(self, number: int, data: bytes) -> dict[str, Any]:
        """Keep what the journal's next entry will tell of; the one before is still needed until then."""
        with self._telling():
            write_whole(self._noted(number), data)
        self._newest = number
        with suppress(FileNotFoundError):
            os.unlink(self._noted(number - 2))
        return {"name": os.path.basename(self.folder), "folder": self.known}

    def noted_at(self, position: dict[str, Any]) -> bytes:
        """Raises OSError where it is gone."""
        with open(f"{self._taken_up}.state-{position['saved']}", "rb") as file:
            return file.read()

    def _noted(self, number: int) -> str:
        return f"{self.folder}.state-{number}"

    def _forget_all(self) -> None:
        """Take away what attempts at a run with a journal have left here, and who it was."""
        above, stem = os.path.split(self._stem)
        ours = re.compile(re.escape(stem) + r"parts(-[0-9a-f]{8})?(\.state-\d+)?")
        for name in filter(ours.fullmatch, os.listdir(above)):
            _take_away(os.path.join(above, name))

    @property
    def is_adding(self) -> bool:
        """Whether an earlier process was killed while it gave the parts their names: that alone is left to do."""
        return os.path.exists(os.path.join(self.folder, MOVES))

    @property
    def adds_to_parts(self) -> bool:
        """Whether there are parts already behind which those of this run come."""
        return self._mode == "append" and next(_parts_in(self.path), None) is not None

    def keep_only(self, folders: Collection[str]) -> None:
        """Take away all parts in other folders inside than these."""
        for at, _, names in os.walk(self.folder):
            inside = os.path.relpath(at, self.folder)
            if ("" if inside == os.curdir else inside) not in folders:
                for name in names:
                    os.unlink(os.path.join(at, name))

    # --- end ---

    def publish(self) -> None:
        """All is written: put it in its place. Raises SinkError."""
        with self._telling():
            if self._mode == "append" and os.path.isdir(self.path) and os.listdir(self.path):
                self._add()
            else:
                self._put()

    def _put(self) -> None:
        mode = 0o777 & ~umask()
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(self.path).st_mode)
        os.chmod(self.folder, mode)
        _sync(self.folder)
        self._made = _told_of(_parts_in(self.folder))
        try:
            os.rename(self.folder, self.path)  # a folder without anything in it too
        except OSError as error:
            if self._mode != "replace" or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._exchange()
        sync_folder(self.path)
        self.let_go()

    def _exchange(self) -> None:
        """In place of the folder that is there; at once, where the system can do that."""
        old = (
            f"{self._stem}taktline-{secrets.token_hex(4)}.parts"  # which the next run takes away, if this one is killed
        )
        if _exchanged(self.folder, self.path):
            os.rename(self.folder, old)
        else:
            os.rename(self.path, old)
            os.rename(self.folder, self.path)
        sync_folder(self.path)
        shutil.rmtree(old)

    def _add(self) -> None:
        """Each part to those that are there, with the next numbers. What was begun is gone on with."""
        there = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lock(there)  # two runs that add
            note = os.path.join(self.folder, MOVES)
            if not os.path.exists(note):
                write_whole(note, json.dumps(list(self._moves())).encode())
            with open(note, "rb") as file:
                moves = json.load(file)
            self._made = _told_of(new for _, new in moves)
            for old, new in moves:
                target = os.path.join(self.path, new)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with suppress(FileNotFoundError):  # it was moved before this run was killed
                    os.rename(os.path.join(self.folder, old), target)
            for folder in {os.path.dirname(os.path.join(self.path, new)) for _, new in moves}:
                sync_folder(os.path.join(folder, "part"))
            shutil.rmtree(self.folder)
            sync_folder(self.path)
        finally:
            os.close(there)
        self.let_go()

    def _moves(self) -> Iterator[tuple[str, str]]:
        """What each part is called here, and there."""
        for at, folders, names in os.walk(self.folder):
            folders.sort()
            inside = os.path.relpath(at, self.folder)
            first = _behind_all(os.path.join(self.path, inside))
            for name in sorted(names):
                if (known := PART_NAME.match(name)) is not None:
                    new = f"part-{int(known[1]) + first:05}.{name[known.end() :]}"
                    yield os.path.normpath(os.path.join(inside, name)), os.path.normpath(os.path.join(inside, new))

    def abandon(self) -> None:
        """Leave nothing behind. May be called again."""
        if self._lock is not None and os.getpid() == self._opened_in:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Leave it as it is. May be called again."""
        self._end_deposits()
        held, self._lock = self._lock, None
        if held is not None:
            os.close(held)
        if self._newest is not None and not os.path.isdir(self.folder):
            # An attempt that went on in its place has put it there, or taken it away: nobody needs what is told of it.
            for number in (self._newest, self._newest - 1):
                with suppress(FileNotFoundError):
                    os.unlink(self._noted(number))

    def is_published(self, run: str, position: dict[str, Any]) -> bool:
        if not os.path.isdir(self.path):
            return False
        if self._mode == "append" and not os.path.exists(os.path.join(os.path.dirname(self.path), position["name"])):
            return True
        return bool(os.stat(self.path).st_ino == position["folder"])

    def made_at(self, position: dict[str, Any]) -> dict[str, Any] | None:
        """What is kept of the parts that are whole, to see later whether they still are there; None where that is not known:
        the process was killed behind giving the last one its name among those of others."""
        if self._made is None and os.path.isdir(self.path) and os.stat(self.path).st_ino == position["folder"]:
            return _told_of(_parts_in(self.path))
        return self._made

    def is_gone(self, run: str, position: dict[str, Any]) -> tuple[str, bool]:
        """Why what was published is not there any more, empty where it is; and whether some of what was added to other
        parts still is, so that it would be there twice."""
        if not os.path.isdir(self.path):
            return f"the folder {self.path!r} was written whole, and is not there any more", False
        made = position.get("made")
        if made is None or not made["parts"]:
            return "", False
        there = _told_parts(made, self.path)
        if self._mode != "append" and os.stat(self.path).st_ino != position["folder"]:
            # Somebody has put another folder in its place, of which only that it has something is known.
            gone = 0 if next(_parts_in(self.path), None) is not None else made["parts"]
        else:
            gone = made["parts"] - there
        why = (
            f"{gone:,} of {made['parts']:,} parts that were written to the folder {self.path!r} are not there any more"
        )
        return (why, self._mode == "append" and there > 0) if gone > 0 else ("", False)

    def forget_owner(self) -> None:
        """The journal says that all is done: take away what a killed run could have needed."""
        if self._owner() == self._journal:
            self._forget_all()
            self._sweep()  # what was there before, where a process was killed that had put another one in its place
            _take_away(self._owners())

    def forget(self, run: str) -> None:
        """Another run begins in the place of one that has a journal: take away what that has made, where it is its own."""
        if self._owner() in (self._journal, None):
            self._forget_all()
            _take_away(self._owners())

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkError(f"{self._named!r} cannot be written: {error.strerror or error}", path=self.path) from error


def _strange(folder: str) -> Iterator[str]:
    """What is in a folder that no run has written."""
    for at, folders, names in os.walk(folder):
        yield from (os.path.join(at, name) for name in folders if "=" not in name)
        yield from (os.path.join(at, name) for name in names if PART_NAME.match(name) is None and name != "_SUCCESS")


def _parts_but(folder: str, suffix: str) -> Iterator[str]:
    """Parts in a folder that are of another format than those with this suffix, however they are packed."""
    kind = suffix.split(".")[:2]
    for at, _, names in os.walk(folder):
        parts = sorted(name for name in names if PART_NAME.match(name) is not None)
        yield from (os.path.join(at, name) for name in parts if kind != ["", *name.split(".")[1:2]])


def _parts_in(folder: str) -> Iterator[str]:
    """The parts in a folder and those inside, by their paths from there."""
    for at, _, names in os.walk(folder):
        inside = os.path.relpath(at, folder)
        yield from (os.path.normpath(os.path.join(inside, name)) for name in names if PART_NAME.match(name))


def _told_of(parts: Iterable[str]) -> dict[str, Any]:
    """How many parts these are, by their paths; and of few folders their numbers too: a journal is small."""
    inside: dict[str, list[int]] = {}
    for each in parts:
        folder, name = os.path.split(each)
        inside.setdefault(folder, []).append(_number(name))
    told: dict[str, Any] = {"parts": sum(map(len, inside.values()))}
    ends = {each: [min(numbers), max(numbers)] for each, numbers in inside.items()}
    return told | ({"inside": ends} if len(json.dumps(ends)) <= ROOM else {})


def _told_parts(told: dict[str, Any], folder: str) -> int:
    """How many of them are in the folder, with those of others where their numbers were not told."""
    if "inside" not in told:
        return sum(1 for _ in _parts_in(folder))
    count = 0
    for inside, (first, last) in told["inside"].items():
        with suppress(FileNotFoundError):
            names = [name for name in os.listdir(os.path.join(folder, inside)) if PART_NAME.match(name)]
            count += sum(first <= _number(name) <= last for name in names)
    return count


def _number(part: str) -> int:
    return int(part.removeprefix("part-").partition(".")[0])


def _behind_all(folder: str) -> int:
    """The number behind those of all parts in a folder."""
    with suppress(FileNotFoundError):
        return max((int(known[1]) for name in os.listdir(folder) if (known := PART_NAME.match(name))), default=-1) + 1
    return 0


def _exchanged(one: str, other: str) -> bool:
    """Whether two folders have got each other's name, at one moment."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux has it
    return call is not None and call(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


def _sync(folder: str) -> None:
    """Make the names in a folder, and in those inside, survive a power cut."""
    for at, _, _ in os.walk(folder):
        sync_folder(os.path.join(at, "part"))


def _take_away(path: str) -> None:
    """A file or a folder, where it is there."""
    with suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

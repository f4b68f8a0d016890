"""The main of a worker process: receive a batch, run the segment, answer, count. Imports little, to start fast."""

from __future__ import annotations

import faulthandler
import fcntl
import functools
import gc
import io
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic_ns, perf_counter_ns, process_time_ns, sleep
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from taktline._crew import envelope, protocol
from taktline._crew.protocol import Figures, Orders
from taktline._crew.random_streams import all_generators, own_streams
from taktline._crew.surroundings import Adopting, Relay
from taktline._crew.worker_streams import Stream
from taktline._recipe.steps import Step
from taktline._segment import policies
from taktline._segment.batch import Batch
from taktline._segment.segment import Segment
from taktline._wire import identity, serialize
from taktline._wire.board import ANY_POSITION, Board
from taktline._wire.channel import Channel, Frame, new_poll
from taktline.errors import DAMAGED_EXIT_CODE

if TYPE_CHECKING:
    from taktline._segment.async_steps import AsyncSegment

AnySegment: TypeAlias = "Segment | AsyncSegment"

WORN_OUT = 72  # exit code of a worker in which too many threads hang
PARTS = 2  # of a batch that may be under way: as many as the schedule lets come before there is room (window.py)
TELL = 0.1  # seconds between two times that a worker which cannot be asked says where it is
SETUP_MEMORY = 1 << 26  # bytes of an arena until the setup says more
FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)  # what keeps back what is written to it


def main() -> NoReturn:
    """Entry of a launched worker; its descriptors are the arguments."""
    descriptor, lifeline, board = map(int, sys.argv[1:4])
    hold(lifeline)
    sock = socket.socket(fileno=descriptor)
    sys.path.pop(0)
    Worker(Channel(sock, blocking=True, most=SETUP_MEMORY), Board(board), lifeline).live()


def segment_of(steps: Sequence[Step], *, goes_on: bool, seed: tuple[int, int, int] | None, most: int) -> AnySegment:
    """What a worker runs these steps with. `most`: bytes that it may hold."""
    if not steps[0].waits:
        segment = Segment(steps, goes_on=goes_on, seed=seed)
        segment.most = most
        return segment
    from taktline._segment.async_steps import AsyncSegment  # asyncio: some 30 ms

    waiting = AsyncSegment(steps, goes_on=goes_on, worn_out=partial(os._exit, WORN_OUT), seed=seed)
    waiting.most = most
    return waiting


def forked(
    sock: socket.socket, lifeline: int, board: Board, segment: AnySegment, most: int, number: int,
    set_up: Callable[[], object] | None,
) -> NoReturn:  # fmt: skip
    """Entry of a forked worker: the steps and the surroundings are here already."""
    hold(lifeline)
    signal.set_wakeup_fd(-1)  # it would wake an asyncio loop of the caller's
    worker = Worker(Channel(sock, blocking=True, most=most), board, lifeline)
    worker.relay = Relay(number, worker.send_note)
    worker.set_up = set_up
    worker.live(segment)


def hold(lifeline: int) -> None:
    """End this process when the caller's is gone: the other end of `lifeline` is closed then, whatever ended it.

    On Linux the kernel itself kills us, so that a step stuck in C code cannot outlive its caller.
    PR_SET_PDEATHSIG would also fire when only the thread that started us ends.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        poll, _ = new_poll()
        poll.register(lifeline, 0)
        if poll.poll(0):  # it was gone before we asked for the signal
            os._exit(71)
    else:

        def watch() -> None:
            os.read(lifeline, 1)
            os._exit(71)

        threading.Thread(target=watch, daemon=True).start()


class Worker:
    """One worker's life, from its setup to its end."""

    def __init__(self, channel: Channel, board: Board, lifeline: int) -> None:
        self.channel = channel
        self.board = board
        self._socket = channel.fileno()
        self._own = {each: _identity(each) for each in (self._socket, board.descriptor, lifeline)}
        self._process = os.getpid()
        self._unanswered = 0  # parts of the batch at work that were not answered
        self._limit = 0.0  # seconds that it may take to pack or unpack a value, where a step has a limit
        self.seq = 0  # of the batch at work
        self.segment: AnySegment | None = None
        self.sent: Callable[[], object] | None = None  # to be called where this end does not wait for the hub to read
        self.busy = self.packing = self.waiting = self.blocked = 0
        self._sending = threading.RLock()  # a step's own threads may print
        self._under_way = False
        self._late: list[tuple[int, bytes]] = []  # said while a message was under way
        self.streams: list[Stream] = []
        self.relay: Relay | None = None
        self.adopting: Adopting | None = None  # the caller's surroundings, where this process is no fork of it
        self.set_up: Callable[[], object] | None = None  # the user's, before the first record
        self.early: list[tuple[int, int, bytes, list[bytes]]] = []  # arrived while a GIVE was awaited

    def send(self, kind: int, seq: int = 0, note: bytes = b"", parts: Sequence[serialize.Bytes] = ()) -> None:
        """Send to the hub, at once: what is done must not wait for what comes next."""
        if not self._is_own(self._socket):  # what a step has opened in its place must not be written to
            os._exit(DAMAGED_EXIT_CODE)
        with self._sending:
            self._under_way = True
            try:
                self.channel.send(kind, seq, note, parts)
                while self._late:
                    self.channel.send(self._late[0][0], 0, self._late.pop(0)[1])
            finally:
                self._under_way = False
        if self.sent is not None:
            self.sent()

    def _is_own(self, descriptor: int) -> bool:
        """Whether this is still what it was when the worker started: a step may close or replace any descriptor."""
        return _identity(descriptor) == self._own[descriptor]

    def flush(self) -> None:
        """Send on what the socket did not take."""
        with self._sending:
            self.channel.flush()

    def send_note(self, kind: int, note: bytes) -> None:
        """Send what a step says besides its results. That may be a finaliser that runs in the middle of a `send`."""
        with self._sending:
            if self._under_way:
                self._late.append((kind, note))
            else:
                self.send(kind, note=note)

    def _say(self, which: bytes, data: bytes) -> None:
        self.send_note(protocol.SAID, which + data)

    def _flush_prints(self) -> None:
        """Only what is ours: nobody flushes in the loop, so what a step has put in the place must not fail by it."""
        for stream in self.streams:
            stream.said()

    def live(self, segment: AnySegment | None = None) -> NoReturn:
        """Work until told to stop or the hub is gone, then end the process."""
        signal.signal(signal.SIGINT, _leave_it_to_the_caller)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the launcher has held it back
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._be_seen()
        policies.in_callers_process = False
        code = 0
        os.register_at_fork(after_in_child=self.abandon)
        try:
            self.streams = [Stream(n, partial(self._say, b"%d" % n)) for n in (1, 2)]
            sys.stdout, sys.stderr = self.streams
            if segment is None:
                segment = self.loaded()
            # What is here by now stays. In a fork, to look through it would copy the caller's pages: 8 % of 200 ms.
            gc.freeze()
            if self.adopting is not None:
                self.adopting.collect_garbage()
            if isinstance(segment, Segment):
                if self.built(segment):
                    while self.serve(segment):
                        pass
            elif segment is not None:
                from taktline._crew.async_worker import attend

                attend(self, segment)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the hub is gone or has closed the run: nobody is left to tell
        except BaseException:
            code = 1
            sys.stderr = sys.__stderr__
            traceback.print_exc()
        finally:
            _flush_files()
            for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
                with suppress(BaseException):  # a step may have put anything in their place
                    getattr(sys, name).flush()
            with suppress(OSError):
                self._flush_prints()
            os._exit(code)  # threads and atexit handlers of the user's must not keep a worker alive

    def _be_seen(self) -> None:
        """Tell the board where we are when asked, and where we were when we crash. The stack is written by C code, so
        also while a step does not come back from a call; the record is only known once Python code runs again."""
        descriptor = self.board.descriptor
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        faulthandler.enable(descriptor, all_threads=False)
        signal.signal(protocol.ASK_SIGNAL, self._asked)
        faulthandler.register(protocol.ASK_SIGNAL, descriptor, all_threads=False, chain=True)
        for module, name in ((signal, "signal"), (signal, "pthread_sigmask"), (faulthandler, "register")):
            setattr(module, name, self._noticed(getattr(module, name)))
        self.board.seen.clear()  # from now on the signal that asks does not kill

    def _noticed(self, takes: Callable[..., Any]) -> Callable[..., Any]:
        """`takes`, by which a step may take the signal that asks for itself: then this worker is asked no more, and tells
        by itself, from a thread, where it is."""

        @functools.wraps(takes)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            named = [(each if isinstance(each, (set, frozenset, list, tuple)) else [each]) for each in args[:2]]
            if (
                any(protocol.ASK_SIGNAL in each for each in [*named, kwargs.values()])
                and not self.board.taken.used
                and os.getpid() == self._process
            ):
                self.board.taken.clear()
                threading.Thread(target=self._tell, name="taktline", daemon=True).start()
            return takes(*args, **kwargs)

        return noticed

    def _tell(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while True:
            self._be_at(sys._current_frames().get(main))
            sleep(TELL)

    def _be_at(self, frame: FrameType | None) -> None:
        if self.segment is not None:
            self.board.seen.set(self.seq, self.segment.position(), self.segment.step_in(frame))

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._be_at(frame)
        if isinstance(self.segment, Segment) or self.segment is None:
            return
        if stack := self.segment.stack():  # the loop's own tells nothing
            os.write(self.board.descriptor, f"\n{stack}\n".encode())

    def show(self, seq: int, position: int, step: int, seconds: float) -> None:
        """Mark the value that is at work, and how long it may take; 0: no limit."""
        deadline = monotonic_ns() + int(seconds * 1e9) if seconds else 0
        self.board.mark.set(seq, position, step, deadline)

    def _mark(self, position: int, step: int, seconds: float) -> None:
        self.show(self.seq, position, step, seconds)

    def abandon(self) -> None:
        """In a process that a step forks: it must not speak on this worker's channel."""
        self.channel.abandon()
        for stream in self.streams:
            stream.let_go()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        if self.relay is not None:
            self.relay.close()

    def loaded(self) -> AnySegment | None:
        """The segment with its steps; None where there are none, and the hub knows why."""
        policies.loading = True
        try:
            return self.setup()
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:
            self._broken(error, built=False)
            return None
        finally:
            policies.loading = False

    def built(self, segment: AnySegment) -> bool:
        """Build the steps and say so; False where that failed and the hub knows why."""
        try:
            if self.relay is not None:
                self.relay.segment = segment
            if self.set_up is not None:
                policies.set_up(self.set_up)
            segment.make()
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:
            self._broken(error, built=True)
            return False
        segment.mark = self._mark
        segment.begun, segment.came = self._begun, self._came
        limits = [step.timeout or 0.0 for step in segment.steps]
        self._limit = limits[-1] or max(limits)
        self.segment = segment
        self.send(protocol.READY, note=b"closes" if any(step.maker is not None for step in segment.steps) else b"")
        return True

    def not_closed(self, error: BaseException) -> None:
        """What was built could not be closed, and may have kept something that was to go somewhere."""
        error.add_note(protocol.IN_CLOSE)
        self._broken(error, built=True)

    def _broken(self, error: BaseException, *, built: bool) -> None:
        trace = "".join(traceback.format_exception(error))
        note = protocol.CannotWork(built, tuple(serialize.pack_error(error)), trace)
        self.send(protocol.BROKEN, note=pickle.dumps(tuple(note)))

    def setup(self) -> AnySegment | None:
        message = self.channel.receive()
        if message is None or message.kind != protocol.SETUP:
            return None
        setup, around, number = (
            protocol.Setup(*pickle.loads(message.parts[0])),
            bytes(message.parts[1]),
            int(message.note),
        )
        self.channel.release()
        sys.path[:] = setup.path
        sys.argv[:] = setup.argv
        if setup.elsewhere:
            from taktline._crew import callers_modules

            callers_modules.use(self.source)
        for name in setup.stand_ins:
            module = sys.modules[name] = ModuleType(name)
            module.__getattr__ = serialize.Fetching(module, self.fetch)  # type: ignore[method-assign]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is imported now: the caller has imported it too
            self.adopting = Adopting(serialize.unpack_functions(around), self.want, self.send_note)
            steps, self.set_up = serialize.unpack_functions(setup.segment)
            failed = self.adopting.adopt()
        identity.look(setup.stand_ins)
        self.adopting.adopt_loggers(failed)
        self.relay = Relay(number, self.send_note)
        own_streams(all_generators(()))  # those that came along, or were seeded by an import, are alike in all workers
        return segment_of(steps, goes_on=setup.goes_on, seed=setup.seed, most=setup.most)

    def fetch(self, module: str, name: str) -> Any:
        """Something of a module that only the caller's process has."""
        given = self._ask(protocol.NEED, (module, name))
        if given is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return serialize.unpack_functions(given)

    def source(self, module: str) -> Any:
        """A module of the user's own, as the caller's machine has it."""
        given = self._ask(protocol.MODULE, module)
        return pickle.loads(given) if given is not None else None

    def want(self, module: str, name: str, by_value: bool) -> bytes | None:
        """What the caller's module has under this name; None where it cannot be had."""
        if threading.current_thread() is not threading.main_thread():
            return None  # the channel is read by the thread that gets the records
        return self._ask(protocol.WANT, (module, name, by_value))

    def _ask(self, kind: int, what: Any) -> bytes | None:
        self.channel.block(True)
        self.send(kind, note=pickle.dumps(what))
        while (message := self.channel.receive()) is not None:
            if message.kind == protocol.GIVE:
                break
            self.early.append((message.kind, message.seq, message.note, [bytes(part) for part in message.parts]))
        self.channel.block(self.sent is None)
        if message is None:
            raise BrokenPipeError
        # Nothing is released here: this may be asked for in the middle of a message that is being read back.
        return bytes(message.parts[0]) if message.parts else None

    def message(self) -> Frame | None:
        """The next message; None where the hub is gone, or where this end does not wait and none is there."""
        if not self.early:
            return self.channel.receive()
        kind, seq, note, copies = self.early.pop(0)
        return Frame(kind, seq, note, [memoryview(copy) for copy in copies])

    def serve(self, segment: Segment) -> bool:
        """One message; False where it is time to end."""
        began = perf_counter_ns()
        message = self.message()
        self.waiting += perf_counter_ns() - began
        if message is None:
            return False
        if message.kind == protocol.STOP:
            try:
                segment.close()
            except BaseException as error:
                self.not_closed(error)
            return False
        if message.kind != protocol.MORE:  # that is late: the batch has ended
            self.work(message, segment)
        return True

    def work(self, message: Frame, segment: Segment) -> None:
        """Run one batch and answer."""
        began = perf_counter_ns()
        self.seq = message.seq
        if self._limit:
            self._give_time(0)
        orders, batch = self.opened(message, segment)
        if batch is None:
            self.send(protocol.SPOILED, message.seq)
            return
        if self._limit:
            self._mark(ANY_POSITION, 0, 0.0)
        if segment.expands:
            self.busy += perf_counter_ns() - began
            self._in_parts(message.seq, segment, batch, orders)
            return
        batch = segment.run(batch, careful=orders.careful, formed=True)
        self.busy += perf_counter_ns() - began
        self._came_through(protocol.DONE, message.seq, batch, segment, orders)

    def _came_through(self, kind: int, seq: int, batch: Batch, segment: Segment, orders: Orders) -> None:
        if self._limit and not orders.careful:
            self._give_time(len(segment.steps) - 1)
        self.answer(
            seq, batch, segment, orders, busy=self.busy, waiting=self.waiting, timed_records=segment.timed_records,
            timed_ns=segment.timed_ns, kind=kind,
        )  # fmt: skip

    def _in_parts(self, seq: int, segment: Segment, batch: Batch, orders: Orders) -> None:
        """Run a batch, and answer with what comes of it as it comes."""
        from taktline._crew.partial import pieces  # mostly not needed

        given, last = pieces(segment, batch, orders, packed=orders.careful), False
        self._unanswered = 0
        while not last:
            began = perf_counter_ns()
            piece, last = next(given)
            self.busy += perf_counter_ns() - began
            self._came_through(protocol.DONE if last else protocol.PART, seq, piece, segment, orders)
            if not last:
                began = perf_counter_ns()
                self._await_room(seq, segment)
                self.blocked += perf_counter_ns() - began

    def _await_room(self, seq: int, segment: Segment) -> None:
        """Wait until there is room for one more part."""
        self._unanswered += 1
        while self._unanswered >= PARTS:
            kept = [n for n, each in enumerate(self.early) if each[:2] == (protocol.MORE, seq)]
            if kept:
                del self.early[kept[0]]
                self._unanswered -= 1
                continue
            message = self.channel.receive()
            if message is not None and message.kind != protocol.STOP:
                self.early.append((message.kind, message.seq, message.note, [bytes(part) for part in message.parts]))
                self.channel.release()
                continue
            segment.close()
            raise BrokenPipeError  # nobody wants the rest

    def _give_time(self, step: int) -> None:
        """A whole batch is packed or unpacked: it may take longer than one of its values, and nobody will know which."""
        self._mark(ANY_POSITION, step, 2 * self._limit + 1)

    def _begun(self, position: int, step: int) -> None:
        """A step begins with a value, in a batch that goes carefully."""
        self.send(protocol.BEGAN, self.seq, protocol.POSITION.pack(position, step))

    def _came(self, position: int, one: Batch) -> None:
        """Put what came of this value into pickles while it is known to be this one that is at work, and let it end this
        process if a step has spoiled what the process lives by."""
        segment = self.segment
        assert segment is not None
        last = len(segment.steps) - 1
        segment.mark(position, last, self._limit)
        envelope.pack_results(one, segment.steps[last].name, goes_on=segment.goes_on, check=True)
        segment.mark(position, last, 0.0)
        if not all(map(self._is_own, self._own)):
            os._exit(DAMAGED_EXIT_CODE)

    def opened(self, message: Frame, segment: AnySegment) -> tuple[Orders, Batch | None]:
        """How to run a batch, and the batch; None where it cannot be read back as a whole."""
        orders, batch = envelope.open_batch(
            message.note, message.parts, partial(self.channel.buffers, message), segment.steps[0].name,
            goes_on=segment.goes_on, begins=lambda position: self._mark(position, 0, self._limit),
            tables=segment.takes_tables,
        )  # fmt: skip
        self.channel.release()
        return orders, batch

    def answer(
        self, seq: int, batch: Batch, segment: AnySegment, orders: Orders, *, busy: int, waiting: int,
        timed_records: list[int], timed_ns: list[int], kind: int = protocol.DONE,
    ) -> None:  # fmt: skip
        """Send what came of a batch, with the worker's counters since it started; times in nanoseconds."""
        began = perf_counter_ns()
        count, outcome, parts = envelope.seal_answer(
            batch, orders, segment.steps[-1].name, goes_on=segment.goes_on, is_part=kind == protocol.PART
        )
        self._flush_prints()
        self.packing += perf_counter_ns() - began
        figures = Figures(
            busy + self.packing, waiting, self.blocked, process_time_ns(), segment.retried, segment.records,
            timed_records, timed_ns,
        )  # fmt: skip
        if self._limit and not orders.careful:
            self._mark(ANY_POSITION, 0, 0.0)
        began = perf_counter_ns()
        self.send(kind, seq, envelope.note_of(count, figures, outcome), parts)
        self.blocked += perf_counter_ns() - began


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What tells an open file from others; None where nothing is open there."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _flush_files() -> None:
    """What steps have written to files that they left open is in these: an interpreter that ends would see to that. Files
    from before a fork are the caller's, and are not among the objects that are looked at here."""
    for each in gc.get_objects():
        if issubclass(type(each), FILES):
            with suppress(BaseException):  # it is closed, or full: the loop would not say so either
                each.flush()


def _leave_it_to_the_caller(number: int, frame: Any) -> None:
    """Ctrl-C reaches the whole foreground group. The caller decides; and unlike SIG_IGN, children do not inherit this."""

"""What a step finds around it besides its record: settings, modules, context variables, loggers and warnings.

A launched worker takes over what the caller's process had when the crew was made, so that all workers have the same.
Settings are put twice: before the worker imports anything, and after it, for what imports have changed.

A worker takes over the levels of the caller's loggers and its filters of warnings, so that what nobody wants to see
costs no message. What passes them travels to the caller, whose own handlers, filters and hooks decide.
"""

from __future__ import annotations

import logging
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from taktline._crew import module_places, modules, protocol, settings
from taktline._recipe.steps import Step
from taktline._segment.segment import Segment
from taktline._signals import pass_on
from taktline._wire import serialize
from taktline._wire.homes import NOT_OF_USER, in_place_of_modules, is_found, loaded, stand_ins

if TYPE_CHECKING:
    from taktline._segment.async_steps import AsyncSegment

Send = Callable[[int, bytes], None]

_registries: dict[str | None, dict[Any, Any]] = {}  # warnings already shown, of modules that only workers have


class Surroundings(NamedTuple):
    """What a worker takes over from the caller."""

    levels: dict[str, tuple[int, bool]]  # logger: its own level, and whether it is disabled
    disabled: int  # what logging.disable() was told
    filters: list[tuple[Any, ...]]  # of warnings; a category that can be imported as (name, module)
    settings: dict[str, bytes]
    variables: list[settings.Variable]
    in_place: dict[
        str, bytes
    ]  # what stands among the modules and no import makes, or that nothing is to be found there
    handlers: dict[int, bytes]  # of signals that the steps send
    states: dict[str, modules.State]

    def adopt_loggers(self) -> None:
        """Make the levels and filters this process's own."""
        for name, (level, disabled) in self.levels.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.disabled = disabled
        logging.disable(self.disabled)
        warnings.resetwarnings()
        warnings.filters.extend(  # type: ignore[attr-defined]
            (action, message, category if isinstance(category, type) else _LaterCategory(*category), module, lineno)
            for action, message, category, module, lineno in self.filters
        )


def of_loggers() -> tuple[dict[str, tuple[int, bool]], int, list[tuple[Any, ...]]]:
    """The levels of this process's loggers, and its filters of warnings."""
    known = {"root": logging.root, **logging.root.manager.loggerDict}
    levels = {
        name: (logger.level, logger.disabled)
        for name, logger in known.items()
        if isinstance(logger, logging.Logger) and (logger is logging.root or logger.level or logger.disabled)
    }
    filters = [
        (action, message, _by_name(category), module, lineno)
        for action, message, category, module, lineno in warnings.filters
    ]
    return levels, logging.root.manager.disable, filters


class Caller:
    """The caller's surroundings as they are now, for its workers. `environment`: what they are started with."""

    def __init__(self, steps: Sequence[Step], also: Sequence[Any], environment: Mapping[str, str]) -> None:
        from taktline._crew.reach import Naming  # no worker needs it

        named = Naming([*steps, *(Step(each, "") for each in also)])
        out = stand_ins()
        self._named = named
        self._snapshot = modules.ModulesSnapshot(named.beside, out)
        variables = settings.variables(out)
        levels, disabled, filters = of_loggers()
        own, self._lost = settings.read(serialize.pack_functions)
        own["os.environ"] = pickle.dumps(dict(environment))
        in_place = self._packed(_in_place(named.modules, out))
        handlers = self._packed(_handlers() if named.names & SENDING else {}, "the handler of signal ")
        self.packed = serialize.pack_functions(
            Surroundings(levels, disabled, filters, own, variables, in_place, handlers, self._snapshot.states)
        )
        self._told: set[str] = set()

    def _packed(self, things: Mapping[Any, Any], what: str = "") -> dict[Any, bytes]:
        packed = {}
        for name, thing in things.items():
            try:
                packed[name] = serialize.pack_functions(thing)
            except Exception as error:  # a reducer of the user's: anything may happen in it
                pass_on(error)
                self._lost.append((f"{what}{name}", f"a {type(thing).__qualname__}: {error}"))
        return packed

    def give(self, note: bytes) -> bytes | None:
        """What a worker asks for of a module; None where it cannot be carried over."""
        home, name, by_value = pickle.loads(note)
        return self._snapshot.give(home, name, serialize.pack_functions, by_value)

    def differing(self, note: bytes) -> tuple[list[str], list[str]]:
        """What a worker says it cannot have, as far as that is news: what is worth a word in the report, and what the
        steps miss. What their own code sets, they make for themselves."""
        made: list[str] = []
        missed: list[str] = []
        for home, name, what in pickle.loads(note):
            path = f"{home}.{name}" if home else name
            if path not in self._told:
                self._told.add(path)
                (made if home and self._named.stores(name.rpartition(".")[2]) else missed).append(f"{path} ({what})")
        return [f"each worker makes its own {each}" for each in made], missed

    def first(self) -> tuple[list[str], list[str]]:
        """What is worth a word in the report, and what the steps miss, as far as is known before any worker starts."""
        large = self._snapshot.large
        protocol = f"too large to be compared with the workers', but for type and length: {', '.join(large)}"
        return [protocol] if large else [], [f"{path} ({what})" for path, what in self._lost]


SENDING = {"alarm", "setitimer", "raise_signal", "kill", "pthread_kill", "killpg"}
# What each process does itself at these.
OWN_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, protocol.ASK_SIGNAL}


def _handlers() -> dict[int, Any]:
    """The handlers of this process's signals that are functions."""
    found = {int(number): signal.getsignal(number) for number in signal.valid_signals() - OWN_SIGNALS}
    return {number: each for number, each in found.items() if callable(each)}


def _in_place(named: set[str], out: Sequence[str]) -> dict[str, Any]:
    """By name: what stands among the modules that no import finds, modules that were made at run time as what they hold."""
    found = {
        name: each for name, each in in_place_of_modules().items()
        if each is None or (name in named and not module_places.is_own_place(name, each))
    }  # fmt: skip
    for name, module in loaded():
        if name in named and name not in out and name not in NOT_OF_USER and type(module) is ModuleType:
            space = vars(module)
            if space.get("__spec__") is None and "__file__" not in space and not is_found(name):
                held = {each: value for each, value in space.items() if not each.startswith("__")}
                found[name] = _Made(name, held)
    return found


class _Made(NamedTuple):
    """A module that was made at run time."""

    name: str
    held: dict[str, Any]


class Adopting:
    """A worker's end: what is taken over from the caller before anything is imported, after it, and with later imports."""

    def __init__(self, around: Surroundings, ask: Callable[[str, str, bool], bytes | None], send: Send) -> None:
        self._around = around
        self._send = send
        self._settling = modules.Settling(around.states, ask, self._tell)
        settings.put(around.settings, leave="gc")
        self._failed = [*self._set_in_place()]

    def _set_in_place(self) -> Iterator[tuple[str, str]]:
        for name, packed in self._around.in_place.items():
            try:
                thing = serialize.unpack_functions(packed)
            except Exception as error:  # the user's own code: anything may happen in it
                yield name, f"{type(error).__name__}: {error}"
                continue
            if type(thing) is _Made:
                made = sys.modules[name] = ModuleType(name)
                vars(made).update(thing.held)
            elif thing is not None or name not in sys.modules:
                sys.modules[name] = thing

    def _set_handlers(self) -> Iterator[tuple[str, str]]:
        for number, packed in self._around.handlers.items():
            try:
                if not callable(signal.getsignal(number)):  # else an import has set it
                    signal.signal(number, serialize.unpack_functions(packed))
            except Exception as error:  # the user's own code: anything may happen in it
                yield f"the handler of signal {number}", f"{type(error).__name__}: {error}"

    def adopt(self) -> list[tuple[str, str]]:
        """After the imports: make this process's modules and settings what the caller's are; which cannot be had, and why."""
        around = self._around
        self._settling.settle()
        failed = [*self._failed, *settings.put(around.settings, leave="gc"), *self._set_handlers()]
        for variable in around.variables:
            if variable.module in sys.modules:
                failed += self._set(variable)
        return failed

    def adopt_loggers(self, failed: list[tuple[str, str]]) -> None:
        """Then what only this process's own code is to see; and watch what is imported later. `failed`: of `adopt`."""
        around = self._around
        around.adopt_loggers()
        self._tell([modules.LostSetting("", name, why) for name, why in failed])
        later = settings.libraries(around.settings) | {v.module for v in around.variables} - sys.modules.keys()
        self._settling.watch(later, self._loaded)

    def collect_garbage(self) -> None:
        """As the caller does. To be called once all that is here by now is frozen: else it would be looked through first,
        some 10 ms where pandas is loaded."""
        settings.put(self._around.settings, "gc")

    def _loaded(self, library: str) -> None:
        failed = settings.put(self._around.settings, library)
        for variable in self._around.variables:
            if variable.module == library:
                failed += self._set(variable)
        self._tell([modules.LostSetting("", name, why) for name, why in failed])

    def _set(self, variable: settings.Variable) -> list[tuple[str, str]]:
        try:
            settings.set_variable(variable)
        except Exception as error:  # a value of the user's classes
            pass_on(error)
            return [(f"{variable.module}.{variable.name}", f"{type(error).__name__}: {error}")]
        return []

    def _tell(self, lost: list[modules.LostSetting]) -> None:
        if lost:
            self._send(protocol.DIFFERS, pickle.dumps([tuple(each) for each in lost]))


def _by_name(category: Any) -> Any:
    name, module = category.__qualname__, category.__module__
    return category if "." in name or module in ("builtins", *stand_ins()) else (name, module)


class _LaterCategory(type):
    """A category of warnings that matches once its module is loaded: a filter alone must not load a large library."""

    def __new__(cls, name: str, module: str) -> _LaterCategory:
        return super().__new__(cls, name, (Warning,), {"__module__": module})

    def __init__(cls, name: str, module: str) -> None:
        super().__init__(name, (Warning,), {})

    def __subclasscheck__(cls, category: type) -> bool:
        real = getattr(sys.modules.get(cls.__module__), cls.__name__, None)
        return isinstance(real, type) and issubclass(category, real)


class Relay:
    """A worker's end: its log records and warnings go to the caller, through `send(kind, note)`."""

    def __init__(self, worker: int, send: Send) -> None:
        self.segment: Segment | AsyncSegment | None = None  # whose steps run here
        self._worker = worker
        self._send = send
        # Not a handler: the caller's handlers are the ones that count, whatever an imported module sets up here.
        self._own = logging.Logger.callHandlers, warnings.showwarning
        logging.Logger.callHandlers = lambda _, record: self.log(record)  # type: ignore[assignment, method-assign]
        warnings.showwarning = self.warn

    def close(self) -> None:
        """Log records and warnings of this process stay in it again."""
        logging.Logger.callHandlers, warnings.showwarning = self._own  # type: ignore[method-assign]

    def log(self, record: logging.LogRecord) -> None:
        """Send one record whole; what cannot be pickled of it goes as text."""
        step = self.segment.name_at(sys._getframe()) if self.segment is not None else None
        fields = {"taktline_worker": self._worker, "taktline_step": step, **record.__dict__}
        fields["processName"] = f"taktline worker {fields['taktline_worker']}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]
        fields["exc_info"] = tuple(serialize.pack_error(error)) if error is not None else None
        try:
            note = pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)
        except Exception as raised:  # a reducer of the user's: anything may happen in it
            pass_on(raised)
            fields["msg"], fields["args"] = record.getMessage(), None
            note = pickle.dumps({name: _carried(value) for name, value in fields.items()}, pickle.HIGHEST_PROTOCOL)
        self._send(protocol.LOGGED, note)

    def warn(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        """In the place of `warnings.showwarning`."""
        warning = message if isinstance(message, Warning) else category(message)
        note = (tuple(serialize.pack_error(warning)), filename, lineno, _module_of(filename))
        self._send(protocol.WARNED, pickle.dumps(note))


def heard_log(note: bytes) -> None:
    """In the caller: a worker's log record goes to the logger of its name, as if it had been logged here."""
    try:
        fields = pickle.loads(note)
    except Exception as odd:  # an argument of the user's classes that cannot be built here
        pass_on(odd)
        logging.getLogger("taktline").warning("a log record of a worker cannot be read back: %r", odd)
        return
    logger = logging.getLogger(fields["name"])
    if not logger.isEnabledFor(fields["levelno"]):
        return
    if fields["exc_info"] is not None:
        carried = serialize.SerializedError(*fields["exc_info"])
        error = serialize.unpack_error(carried, step=fields["taktline_step"] or "", trace=fields["exc_text"])
        fields["exc_info"] = (type(error), error, None)
    logger.handle(logging.makeLogRecord(fields))


def heard_warning(note: bytes) -> None:
    """In the caller: a worker's warning goes through this process's own filters and hooks, and is shown once.

    Raises it where a filter made since the worker started says "error"."""
    packed, filename, lineno, module = pickle.loads(note)
    carried = serialize.SerializedError(*packed)
    warning = serialize.unpack_error(carried, step="", trace="")
    if not isinstance(warning, Warning):
        warning = UserWarning(f"{carried.type_name}: {carried.text}")
    here = vars(sys.modules[module]) if module in sys.modules else _registries.setdefault(module, {})
    registry = here.setdefault("__warningregistry__", {})  # where the loop's own warnings of this module are noted
    warnings.warn_explicit(warning, type(warning), filename, lineno, module, registry)


def _module_of(filename: str) -> str | None:
    """The module that the warning is about: filters name it, and what was already shown is noted in it."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == filename:
            return frame.f_globals.get("__name__")
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _carried(value: Any) -> Any:
    """`value`, or its text where it cannot be pickled."""
    try:
        pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return repr(value)
    return value

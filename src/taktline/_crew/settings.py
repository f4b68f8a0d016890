"""Settings of a process and of libraries that hold for all code in it: read in the caller, made a worker's own."""

from __future__ import annotations

import contextvars
import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from taktline._files import umask
from taktline._signals import pass_on
from taktline._wire.homes import loaded, of_user
from taktline._working_folder import working_folder


class _Setting(NamedTuple):
    """One setting. `library`: the module that must be loaded for it to mean anything. `of_code`: it has functions or
    classes in it."""

    library: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    of_code: bool = False


# --- the process ---

OWN = tuple(os.environ.get("TAKTLINE_OWN", "").split(","))


def _put_environ(wanted: Mapping[str, str]) -> None:
    """As the caller has it, but for what belongs to this machine where it is another one: TAKTLINE_OWN names that."""
    wanted = {
        **{name: value for name, value in wanted.items() if name not in OWN},
        **{name: os.environ[name] for name in OWN if name in os.environ},
    }
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _put_umask(mask: int) -> None:
    os.umask(mask)


def _put_folder(folder: str) -> None:
    if folder and folder != working_folder():
        os.chdir(folder)


def _put_stack_size(size: int) -> None:
    threading.stack_size(size)


def _locale() -> str:
    import _locale

    return str(_locale.setlocale(_locale.LC_ALL, None))


def _put_locale(wanted: str) -> None:
    import _locale

    if _locale.setlocale(_locale.LC_ALL, None) != wanted:
        _locale.setlocale(_locale.LC_ALL, wanted)


def _gc() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _put_gc(wanted: tuple[bool, tuple[int, int, int]]) -> None:
    enabled, threshold = wanted
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()


def _digits() -> int | None:
    return sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else None


def _put_digits(wanted: int | None) -> None:
    if wanted is not None:
        sys.set_int_max_str_digits(wanted)


# --- libraries ---


def _module(name: str) -> Any:
    return sys.modules[name]


def _decimal() -> tuple[Any, Any]:
    decimal = _module("decimal")
    return decimal.getcontext().copy(), decimal.DefaultContext.copy()


def _put_decimal(wanted: tuple[Any, Any]) -> None:
    decimal = _module("decimal")
    context, default = wanted
    decimal.setcontext(context)
    for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
        setattr(decimal.DefaultContext, name, getattr(default, name))
    decimal.DefaultContext.traps.update(default.traps)


def _csv() -> tuple[int, dict[str, dict[str, Any]]]:
    csv = _module("csv")
    names = (
        "delimiter",
        "quotechar",
        "escapechar",
        "doublequote",
        "skipinitialspace",
        "lineterminator",
        "quoting",
        "strict",
    )
    dialects = {name: csv.get_dialect(name) for name in csv.list_dialects()}
    return csv.field_size_limit(), {n: {each: getattr(d, each) for each in names} for n, d in dialects.items()}


def _put_csv(wanted: tuple[int, dict[str, dict[str, Any]]]) -> None:
    csv = _module("csv")
    limit, dialects = wanted
    csv.field_size_limit(limit)
    known = _csv()[1]
    for name, how in dialects.items():
        if known.get(name) != how:
            csv.register_dialect(name, **how)
    for name in known.keys() - dialects.keys():
        csv.unregister_dialect(name)


def _numpy() -> tuple[Any, ...]:
    numpy = _module("numpy")
    shown = {n: v for n, v in numpy.get_printoptions().items() if n != "override_repr"}
    return numpy.geterr(), shown, numpy.geterrcall(), numpy.getbufsize()


def _put_numpy(wanted: tuple[Any, ...]) -> None:
    numpy = _module("numpy")
    _, shown, call, size = _numpy()
    numpy.seterr(**wanted[0])
    if shown != wanted[1]:
        numpy.set_printoptions(**wanted[1])
    if call is not wanted[2]:
        numpy.seterrcall(wanted[2])
    if size != wanted[3]:
        numpy.setbufsize(wanted[3])


def _pandas() -> dict[str, Any]:
    config = _module("pandas._config.config")
    options = {}
    for name in config._registered_options:
        if name not in config._deprecated_options:
            value = config.get_option(name)
            options[name] = value
    return options


def _put_pandas(wanted: dict[str, Any]) -> None:
    config = _module("pandas._config.config")
    own = _pandas()
    for name, value in wanted.items():
        if name in own and (type(own[name]), own[name]) != (type(value), value):
            config.set_option(name, value)


def _polars() -> str:
    return str(_module("polars").Config.save(if_set=True))


def _put_polars(wanted: str) -> None:
    if _polars() != wanted:
        _module("polars").Config.load(wanted)


def _types_of_files() -> list[tuple[str, str, bool]]:
    """What was added to those that Python knows, and what it has found on this machine."""
    mimetypes = _module("mimetypes")
    known: Any = (mimetypes._common_types_default, mimetypes._types_map_default)
    found = mimetypes._db.types_map if mimetypes._db is not None else ()
    return [
        (kind, end, strict)
        for strict, ends in zip((False, True), found, strict=False)
        for end, kind in ends.items()
        if known[strict].get(end) != kind
    ]


def _put_types_of_files(wanted: list[tuple[str, str, bool]]) -> None:
    for kind, end, strict in wanted:
        _module("mimetypes").add_type(kind, end, strict)


def _reducers() -> dict[Any, Any]:
    """Those that this program has told `copyreg` of, without our own (`identity.py`)."""
    from taktline._crew.reach import put_there

    known = list(_module("copyreg").dispatch_table.items())
    return {
        kind: how
        for kind, how in known
        if (put_there(kind) or put_there(how)) and not str(how.__module__).startswith("taktline")
    }


def _put_reducers(wanted: dict[Any, Any]) -> None:
    _module("copyreg").dispatch_table.update(wanted)


LOGGING = ("_loggerClass", "_logRecordFactory", "_levelToName", "_nameToLevel", "raiseExceptions")


def _logging() -> dict[str, Any]:
    found = {name: getattr(_module("logging"), name) for name in LOGGING}
    threads: Any = sys.modules.get("taktline._crew.threads")
    factory = found["_logRecordFactory"]
    if (
        threads is not None and type(factory) is threads.TellingFactory
    ):  # a run in threads, beside this one, has put it there
        found["_logRecordFactory"] = factory.around
    return found


def _put_logging(wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        setattr(_module("logging"), name, value)


def _finders() -> dict[str, list[Any]]:
    """What imports go by that this program has made; of installed packages, their own import makes it."""
    from taktline._crew.reach import put_there  # no worker needs it

    return {name: [each for each in getattr(sys, name) if put_there(each)] for name in ("meta_path", "path_hooks")}


def _put_finders(wanted: dict[str, list[Any]]) -> None:
    global _finders_are_put
    if not _finders_are_put:
        for name, finders in wanted.items():
            getattr(sys, name)[:0] = finders
    _finders_are_put = True


_finders_are_put = False


def _attribute(module: str, name: str) -> _Setting:
    return _Setting(module, lambda: getattr(_module(module), name), lambda value: setattr(_module(module), name, value))


SETTINGS = {
    "os.environ": _Setting("os", lambda: dict(os.environ), _put_environ),
    "os.umask": _Setting("os", umask, _put_umask),
    "working directory": _Setting("os", working_folder, _put_folder),
    "locale": _Setting("sys", _locale, _put_locale),
    "gc": _Setting("gc", _gc, _put_gc),
    "sys.setrecursionlimit": _Setting("sys", sys.getrecursionlimit, sys.setrecursionlimit),
    "sys.set_int_max_str_digits": _Setting("sys", _digits, _put_digits),
    "sys.setswitchinterval": _Setting("sys", sys.getswitchinterval, sys.setswitchinterval),
    "threading.stack_size": _Setting("sys", threading.stack_size, _put_stack_size),
    "socket.setdefaulttimeout": _Setting(
        "socket", lambda: _module("socket").getdefaulttimeout(), lambda s: _module("socket").setdefaulttimeout(s)
    ),
    "csv": _Setting("csv", _csv, _put_csv),
    "decimal.getcontext()": _Setting("decimal", _decimal, _put_decimal),
    "tempfile.tempdir": _attribute("tempfile", "tempdir"),
    "copyreg.pickle": _Setting("copyreg", _reducers, _put_reducers, of_code=True),
    "mimetypes.add_type": _Setting("mimetypes", _types_of_files, _put_types_of_files),
    "logging": _Setting("logging", _logging, _put_logging, of_code=True),
    "numpy.seterr": _Setting("numpy", _numpy, _put_numpy, of_code=True),
    "pandas.options": _Setting("pandas._config.config", _pandas, _put_pandas, of_code=True),
    "polars.Config": _Setting("polars", _polars, _put_polars),
    "sys.meta_path": _Setting("sys", _finders, _put_finders, of_code=True),
}


def read(pack: Callable[[Any], bytes]) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """All settings of this process that mean something in it, each pickled, those with functions by `pack`; and those that
    cannot be, with the reason. What a library does not tell is left out."""
    found: dict[str, bytes] = {}
    lost = []
    for name, setting in SETTINGS.items():
        if setting.library in sys.modules:
            try:
                value = setting.get()
            except (AttributeError, KeyError, TypeError) as error:  # another version of a library, or half loaded
                pass_on(error)
                continue
            try:
                found[name] = pack(value) if setting.of_code else pickle.dumps(value)
            except Exception as error:  # a reducer of the user's: anything may happen in it
                pass_on(error)
                lost.append((name, f"{type(error).__name__}: {error}"))
    return found, lost


def put(wanted: Mapping[str, bytes], library: str | None = None, *, leave: str = "") -> list[tuple[str, str]]:
    """Make these settings this process's own, those of one library or of all that are loaded; which ones cannot be
    had, and why."""
    failed = []
    for name, packed in wanted.items():
        setting = SETTINGS[name]
        if setting.library in sys.modules and library in (None, setting.library) and name != leave:
            try:
                setting.put(pickle.loads(packed))
            except Exception as error:  # whatever a library says: this setting is not to be had here
                failed.append((name, f"{type(error).__name__}: {error}"))
    return failed


def libraries(wanted: Iterable[str]) -> set[str]:
    """The libraries of these settings that are not loaded yet."""
    return {SETTINGS[name].library for name in wanted} - sys.modules.keys()


# --- context variables ---

OWN_WAY = {"decimal", "_decimal", "numpy", "taktline"}  # what theirs say goes as a setting, or is none
OWN_NAMES = {
    "decimal_context",
    "numpy.ufunc.extobj",
    "format_options",
}  # those that are there without a wish of the user's


class Variable(NamedTuple):
    """A context variable that stands in a module (or in a class of it) under a name, and its value, pickled."""

    module: str
    name: str
    value: bytes


def variables(leave: Iterable[str]) -> list[Variable]:
    """The caller's context as far as installed modules know its variables. The user's own are compared with all else in
    their modules. What a library keeps for itself in its own and cannot be pickled, stays here."""
    context = contextvars.copy_context()
    ours = {id(variable): variable for variable in context if variable.name not in OWN_NAMES}
    found: list[Variable] = []
    for home, name, variable in _homes(ours, set(leave)) if ours else ():
        try:
            found.append(Variable(home, name, pickle.dumps(context[variable])))
        except Exception as error:  # a reducer of somebody's: anything may happen in it
            pass_on(error)
    return found


def _homes(
    ours: dict[int, contextvars.ContextVar[Any]], leave: set[str]
) -> Iterator[tuple[str, str, contextvars.ContextVar[Any]]]:
    for home, module in loaded():
        if home in leave or home.partition(".")[0] in OWN_WAY or of_user(module):
            continue
        for name, value in list(vars(module).items()):
            kind = type(value)
            if kind is contextvars.ContextVar:
                if id(value) in ours and name.isidentifier():
                    yield home, name, ours.pop(id(value))
            elif issubclass(kind, type) and vars(value).get("__module__") == home:
                for attribute, held in list(vars(value).items()):
                    if type(held) is contextvars.ContextVar and id(held) in ours:
                        yield home, f"{name}.{attribute}", ours.pop(id(held))


def set_variable(variable: Variable) -> None:
    """In this context. Raises where the variable is not there, or its value cannot be read back."""
    place: Any = sys.modules[variable.module]
    for part in variable.name.split("."):
        place = getattr(place, part)
    place.set(pickle.loads(variable.value))

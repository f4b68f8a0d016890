"""Formats and URL schemes that packages bring, found by the entry points that they declare: docs/extending.md says how.

A package is imported only when its format or scheme is used; what goes wrong in that is told with the package's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from taktline._io import remote
from taktline._signals import pass_on
from taktline.abc import Sink, Source
from taktline.errors import LineError, SinkError, TaktlineError, did_you_mean, unwritable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FORMATS, SCHEMES = "taktline.formats", "taktline.schemes"
DATABASES = ("sqlite", "postgresql", "postgres")
USUAL = (
    "file",
    "http",
    "https",
    "s3",
    "gs",
    "az",
)  # of those that fsspec knows: it has some sixty, most for few people


def names(group: str) -> list[str]:
    """What installed packages bring, by name."""
    return sorted({each.name for each in _entries(group)})


def _entries(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # with what reads mails and archives: some 20 ms

    return entry_points(group=group)


def _loaded(group: str, name: str) -> Any:
    """What a package brings under this name. Raises LineError that names the package where it cannot be had."""
    found = {each.value: each for each in _entries(group) if each.name == name}
    what = f"the scheme {name}://" if group == SCHEMES else f"the format {name!r}"
    if len(found) > 1:
        owners = " and ".join(sorted(map(_package, found.values())))
        raise LineError(f"{what} is brought by several packages, {owners}; uninstall all but one")
    (entry,) = found.values()
    try:
        return entry.load()
    except Exception as error:  # the package's own code runs
        pass_on(error)
        raise LineError(
            f"{what} is brought by the package {_package(entry)}, which cannot be loaded: {type(error).__name__}: {error} "
            f"(its entry point is {entry.value!r}). Mend the package, or uninstall it"
        ) from error


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value


# --- schemes ---


def has_scheme(path: object) -> bool:
    """Whether a package brings the scheme of this URL. Raises LineError for a URL whose scheme nobody knows."""
    if not isinstance(path, str) or not remote.is_url(path):
        return False
    scheme, ours = _scheme(path), names(SCHEMES)
    known = {"file", *remote.schemes()}
    if scheme not in known and scheme not in ours:
        raise LineError(_nobody_knows(path, scheme, ours, known))
    return scheme in ours


def opened(what: str, url: str, given: Mapping[str, Any]) -> Any:
    """The source (`what`: "read") or sink ("write") that a package makes of a URL of its scheme, with the options that
    are not None. Raises LineError."""
    scheme, shown = _scheme(url), remote.shown(url)
    make = getattr(_loaded(SCHEMES, scheme), what, None)
    if make is None:
        raise LineError(
            f"{shown!r} cannot be {'read' if what == 'read' else 'written'}: {scheme}:// is for the other end"
        )
    given = {name: value for name, value in given.items() if value is not None}
    taken = signature(make).parameters
    for name in given:
        if name not in taken and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            raise LineError(f"{name}= has no meaning for {scheme}://")
    made, kind = make(url, **given), Source if what == "read" else Sink
    if not isinstance(made, kind):
        raise LineError(
            f"what {scheme}:// makes of {shown!r} is no taktline.abc.{kind.__name__}: {type(made).__name__}"
        )
    return made


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _nobody_knows(url: str, scheme: str, ours: Sequence[str], known: set[str]) -> str:
    if scheme in DATABASES:
        base = remote.shown(url)
        return (
            f"{base!r} is a database, and a URL alone says neither what to read there nor where to write. In Python:\n"
            f'  read    taktline.read_sql({base!r}, "SELECT * FROM orders")\n'
            f'  write   taktline.write_sql({base!r}, "orders", key="id")'
        )
    hint = did_you_mean(scheme, sorted(known.union(ours)), "{}://".format) or "."
    usual = [each for each in USUAL if each in known]
    more = f", and {len(known) - len(usual)} more that fsspec knows" if len(known) > len(usual) else ""
    return f"no package here knows the scheme {scheme}://{hint} There are {', '.join([*ours, *DATABASES[:2], *usual])}{more}"


# --- formats ---


def decoder(format: str) -> Callable[[Any], Any]:
    """What makes the records of an open file. Raises LineError where the format is only written."""
    return _function(format, "decode", "read")


def encoder(format: str) -> Encoder:
    """What makes the bytes of results. Raises LineError where the format is only read."""
    return Encoder(format, _function(format, "encode", "written"))


def _function(format: str, name: str, what: str) -> Callable[[Any], Any]:
    brought = _loaded(FORMATS, format)
    if not hasattr(brought, name):
        raise LineError(f"the format {format!r} cannot be {what}: the package that brings it has no {name}() for it")
    function: Callable[[Any], Any] = getattr(brought, name)
    return function


class Encoder:
    """Results to bytes, each by itself; `first` is the number of the first one, for the errors."""

    def __init__(self, format: str, encode: Callable[[list[Any]], bytes]) -> None:
        self._format = format
        self._encode = encode

    def __call__(self, results: Sequence[Any], first: int) -> bytes:
        try:
            return self._encode(list(results))
        except TaktlineError:
            raise
        except Exception as error:
            pass_on(error)
            raise self._refused(results, first, error) from error

    def _refused(self, results: Sequence[Any], first: int, error: Exception) -> SinkError:
        """Names the first result that is refused by itself; the last one where none is."""
        for at, result in enumerate(results):
            try:
                self._encode([result])
            except Exception as own:
                return unwritable(first + at, result, f"{type(own).__name__}: {own}", self._format)
        last = len(results) - 1
        return unwritable(first + last, results[last], f"{type(error).__name__}: {error}", self._format)

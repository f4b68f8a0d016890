"""What the caller's modules hold, beside what a worker's own import of them gives; where the two differ, the caller's.

Both ends describe each global and class attribute by a short text: a value by what it is, a function by where it was
written, everything else by a digest of its pickle. Equal texts are the same thing and nothing travels. What differs is
put into the worker's module: into the object that is there, where it can be, so that all who hold it see it.

Objects that stand in a module under a name are told by that name wherever else they occur, so that what was one object
is one object again. What has no value that could go (a connection, a lock) is told by its type: it differs where the
worker has something else in its place.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from taktline._crew.module_digests import (
    NamingPickler,
    OwnPickler,
    Told,
    WorkersOwn,
    digest_of_state,
    is_large,
    kept_now,
    reference_of,
    told,
)
from taktline._crew.module_merging import Merging
from taktline._crew.module_places import (
    ATOM_TYPES,
    MISSING,
    REGISTRIES,
    TOLD_BY_VALUE,
    GlobalPlace,
    Path,
    can_go,
    codes_of,
    drop,
    find,
    home_of,
    is_own_place,
    names_of,
    nearest_above,
    owner_of,
    places_of,
    put,
    stored_beside,
    stores,
)
from taktline._signals import pass_on
from taktline._wire.homes import in_place_of_modules, loaded, of_user


class State(NamedTuple):
    """All that is compared of a module. `names`: those alone; None: all of them. `told`: pickled, by name."""

    names: frozenset[str] | None
    digest: bytes
    told: bytes


class LostSetting(NamedTuple):
    """What differs and cannot be carried over. `what`: what the caller has there."""

    module: str
    name: str
    what: str


class ModulesSnapshot:
    """What the caller's modules hold now, for workers that ask for it later. `beside`: names of other modules that are
    compared too."""

    def __init__(self, beside: Mapping[str, Iterable[str]], leave: Iterable[str]) -> None:
        out = set(leave)
        scope: dict[str, frozenset[str] | None] = {
            name: None for name, module in loaded() if name not in out and of_user(module) and module.__name__ == name
        }
        # A module that has put an object of its own in its place.
        scope |= {name: None for name, each in in_place_of_modules().items() if is_own_place(name, each)}
        scope |= {name: frozenset(names) for name, names in beside.items() if name not in scope and name not in out}
        self._names = names_of(scope.items())
        self._held: dict[Path, Any] = {}  # alive as long as this is: their ids stand for them
        self._given: dict[tuple[str, str, bool], bytes | None] = {}
        self.large: list[str] = []
        self.states = {name: self._state(name, names) for name, names in scope.items()}

    def _state(self, home: str, names: frozenset[str] | None) -> State:
        state = {}
        for name, place in places_of(home, names):
            state[name] = told(place.value, (home, name), self._names)
            self._held[home, name] = place.value
            if state[name].text.endswith("too large to be looked at"):
                self.large.append(f"{home}.{name}")
        packed = {name: self._with_value(home, name, each) for name, each in state.items()}
        return State(names, digest_of_state(state), pickle.dumps(packed))

    def _with_value(self, home: str, name: str, mark: Told) -> Told:
        value = self._held[home, name]
        plain = type(value) in ATOM_TYPES or mark.text.startswith("tuple (")
        return Told(mark.text, pickle.dumps(value)) if plain and mark.packed is None else mark

    def give(self, home: str, name: str, pack: Callable[[Any], bytes], by_value: bool) -> bytes | None:
        """One thing as bytes, as it is when this is asked for first, so that later workers have the same. `pack`: for
        functions; `by_value`: all of it. None where it cannot go."""
        key = (home, name, by_value)
        if key not in self._given:
            self._given[key] = self._packed(home, name, pack, by_value)
        return self._given[key]

    def _packed(self, home: str, name: str, pack: Callable[[Any], bytes], by_value: bool) -> bytes | None:
        value = self._held[home, name]
        if type(value) is FunctionType and (home_of(value), value.__qualname__) == (home, name):
            value = _nameless(value)  # by its name the worker would find its own
        try:
            if by_value or reference_of(value) is not None:
                return pack(value)
            file = io.BytesIO()
            pickler = OwnPickler(file, pickle.HIGHEST_PROTOCOL) if is_large(value) else None
            (pickler or NamingPickler(file, value, self._names)).dump(value)
            return file.getvalue()
        except Exception as raised:  # a reducer of the user's
            pass_on(raised)
            return None


def _nameless(function: FunctionType) -> FunctionType:
    """A copy of a function, under no name by which it could be found."""
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__dict__.update(vars(function))
    made.__qualname__ = f"<another>.{function.__qualname__}"
    return made


class Settling:
    """A worker's end: makes its modules what the caller's are. `ask(module, name, by_value)` fetches what did not come
    along; `tell` is given what differs and cannot be carried over."""

    def __init__(
        self,
        states: Mapping[str, State],
        ask: Callable[[str, str, bool], bytes | None],
        tell: Callable[[list[LostSetting]], None],
    ) -> None:
        self._states = states
        self._ask = ask
        self._tell = tell
        self._done: set[str] = set()
        self._names: dict[int, Path] = {}
        self._theirs: dict[Path, Told] = {}  # what is to be changed
        self._made: dict[Path, Any] = {}  # the objects in their places
        self._own: dict[Path, GlobalPlace] = {}
        self._replaced: dict[int, Any] = {}
        self._given: dict[int, Any] = {}  # by id: objects of this process that stand in what was read back
        self._lost: list[LostSetting] = []
        self._lock = threading.RLock()  # steps in threads may import
        self._deep = 0  # settling may import a module, which is settled then

    def settle(self, only: str | None = None) -> None:
        """Now, for all modules that are loaded and were not settled before, or for this one."""
        with self._lock:
            self._deep += 1
            try:
                self._settle(only)
            finally:
                self._deep -= 1
                if not self._deep:
                    for each in (self._theirs, self._made, self._own, self._replaced, self._given):
                        each.clear()

    def _settle(self, only: str | None) -> None:
        ready = [only] if only is not None else [name for name in self._states if name in sys.modules]
        ready = [name for name in ready if name not in self._done]
        self._done |= set(ready)
        self._names = names_of((name, state.names) for name, state in self._states.items() if name in self._done)
        for home in ready:
            self._compare(home)
        for path in list(self._theirs):
            self._settled(path)
        self._follow()
        lost, self._lost = self._lost, []
        if lost:
            self._tell(lost)

    def watch(self, others: Iterable[str], loaded: Callable[[str], None]) -> None:
        """From now on settle each module when it has been loaded. Of `others` tell `loaded`."""
        waiting = (self._states.keys() - self._done) | set(others)

        def settle(name: str) -> None:
            if name in self._states:
                self.settle(name)
            loaded(name)

        if waiting:
            sys.meta_path.insert(0, _LaterFinder(waiting, settle))

    def _compare(self, home: str) -> None:
        state, module = self._states[home], sys.modules[home]
        places = dict(places_of(home, state.names))
        own = {name: told(place.value, (home, name), self._names) for name, place in places.items()}
        if digest_of_state(own) == state.digest:
            return
        theirs: dict[str, Told] = pickle.loads(state.told)
        differing = {n: each for n, each in theirs.items() if n not in own or own[n].text != each.text}
        differing = {n: each for n, each in differing.items() if nearest_above(n, own) not in differing}
        gone = {n for n in own if n not in theirs and nearest_above(n, own) not in differing and can_go(n, places[n])}
        lost = {n for n, each in differing.items() if each.text.startswith("a ")}
        beside = stored_beside(module, {n.rpartition(".")[2] for n in lost}) if lost else set()
        if state.names is not None:  # of somebody else's module: whether it is ready is its own business
            beside |= {n for n, each in differing.items() if each.text.startswith(("bool", "NoneType"))}
            gone = set()
            lazily = set[str]().union(*map(stores, codes_of(module))) if lost else set()
            lost -= {name for name in lost if name.rpartition(".")[2] in lazily}
            beside |= lazily & differing.keys()
        for name, each in differing.items():
            path, owner = (home, name), owner_of(module, name)
            if owner is None:
                continue
            place = places.get(name, GlobalPlace(owner, name.rpartition(".")[2], MISSING))
            if name in lost:
                self._lost.append(LostSetting(home, name, each.text))
            elif place.name not in beside:
                self._theirs[path], self._own[path] = each, place
            elif state.names is None and not each.text.startswith(("bool", "NoneType")):
                self._lost.append(LostSetting(home, name, f"set together with {', '.join(sorted(lost))}"))
        for name in gone - beside:
            drop(places[name])

    def _settled(self, path: Path) -> Any:
        """The object that stands at this path, once it is what the caller has there."""
        if path in self._made:
            return self._made[path]
        if path not in self._theirs:
            return find(path)
        place = self._own[path]
        self._made[path] = place.value  # what refers back to it meanwhile
        mark = self._theirs[path]
        if mark.text.startswith("is "):
            _, home, name = mark.text.split(" ")
            value = self._settled((home, name))
        else:
            value = self._value(path, mark, place)
        if value is not MISSING and value is not place.value:
            put(place, value)
            if place.value is not MISSING and self._names.get(id(place.value)) == path:
                self._replaced[id(place.value)] = value
        self._made[path] = value
        return value

    def _value(self, path: Path, mark: Told, place: GlobalPlace) -> Any:
        """What the caller has at this path, in the object that is here where it can be."""
        merging = Merging(self._names, path, self._given)
        value = merging.merged(place.value, self._read(path, mark.packed))
        kept_now.clear()
        if not merging.lost:
            return value
        whole = self._ask(*path, True)
        if whole is not None:
            with suppress(Exception):  # the user's own code: anything may happen in it
                return Merging(self._names, path, self._given).merged(place.value, pickle.loads(whole))
        registry = path[1] in (*REGISTRIES.get(path[0], ()), *TOLD_BY_VALUE.get(path[0], ()))
        code = mark.text.startswith(("def ", "class "))  # that somebody has put there
        if self._states[path[0]].names is None or registry or code:  # else it is a library's own
            what = sorted({each[2:] for each in merging.lost if each.startswith("a ")})
            self._lost.append(
                LostSetting(*path, f"something with a {', a '.join(what)}" if what else "something with functions")
            )
        return place.value  # what is new would be there in part only

    def _read(self, path: Path, packed: bytes | None) -> Any:
        kept_now.clear()
        if packed is None:
            packed = self._ask(*path, False)
            if packed is None:
                return WorkersOwn("a value that cannot be pickled")
        try:
            return _Unpickler(packed, self._refer).load()
        except Exception as error:  # the user's own code: anything may happen in it
            return WorkersOwn(f"a value that cannot be read back: {type(error).__name__}: {error}")

    def _refer(self, path: Path) -> Any:
        value = self._settled(path)
        if value is MISSING:
            raise LookupError(f"there is no {path[0]}.{path[1]} here")
        self._given[id(value)] = value
        return value

    def _follow(self) -> None:
        """Other names of an object that had to make way for another one."""
        if not self._replaced:
            return
        for home in [name for name in self._done if name in sys.modules]:
            for name, place in list(places_of(home, self._states[home].names)):
                if (home, name) not in self._theirs and id(place.value) in self._replaced:
                    put(place, self._replaced[id(place.value)])


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: bytes, refer: Callable[[Path], Any]) -> None:
        super().__init__(io.BytesIO(packed))
        self._refer = refer

    def persistent_load(self, path: Path) -> Any:
        return self._refer(path)


class _LaterFinder:
    """A finder that finds nothing itself: it has modules settled that are loaded from now on, once the import that loads
    them has come to its end: half a package would be mistaken for another one."""

    def __init__(self, names: Iterable[str], settle: Callable[[str], None]) -> None:
        self._names = set(names)
        self._settle = settle
        self._thread = threading.local()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not self._names:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return self._watched(spec)
        return None

    def _watched(self, spec: importlib.machinery.ModuleSpec) -> importlib.machinery.ModuleSpec:
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        if run is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            with suppress(AttributeError):
                del loader.exec_module
            here = self._thread
            here.deep = getattr(here, "deep", 0) + 1
            try:
                run(module)
            finally:
                here.deep -= 1
            if not here.deep:
                for name in [name for name in self._names if name in sys.modules]:
                    self._names.discard(name)
                    self._settle(name)

        with suppress(AttributeError):  # a loader of somebody's with no room for it: seen with the next import
            loader.exec_module = exec_module
        return spec

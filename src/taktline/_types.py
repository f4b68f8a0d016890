"""What a step, a line, a run and a source are of: the type variables, for type checkers, editors and `get_type_hints`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from typing import TypeVar as Variable

if TYPE_CHECKING:  # with defaults, so that a plain Step or Line is one of any; Python has them from 3.13 on
    from typing_extensions import TypeVar

    In = TypeVar("In", contravariant=True, default=Any)
    Out = TypeVar("Out", covariant=True, default=Any)
else:
    from typing import TypeVar

    In = TypeVar("In", contravariant=True)
    Out = TypeVar("Out", covariant=True)

A = Variable("A")
B = Variable("B")
C = Variable("C")
D = Variable("D")
E = Variable("E")
F = Variable("F")
G = Variable("G")
H = Variable("H")
I = Variable("I")  # noqa: E741  the ninth
T = Variable("T")

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never, ParamSpec, TypeAlias

    P = ParamSpec("P")

    # What takes and gives values of any type that are alike, as abs, max, sorted and list do. A type checker that looks at
    # one by itself has nothing to tell the type from, and settles on one that nothing fits.
    AnyKind: TypeAlias = Callable[
        [Any], list[Never] | set[Never] | frozenset[Never] | tuple[Never, ...] | dict[Never, Never]
    ]

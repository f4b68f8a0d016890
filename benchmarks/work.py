"""The work that is measured: records, steps, and the plain loop over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron")


@dataclass(frozen=True)
class Work:
    """Some steps over some records. `records` makes them anew, `length` is their number."""

    name: str
    steps: tuple[Callable[[Any], Any], ...]
    records: Callable[[], Iterable[Any]]
    length: int
    chain: Callable[[Any], Any]  # the same steps as one function that can be pickled by name


# --- JSON lines, four steps ---


def parse(text: str) -> dict[str, Any]:
    return json.loads(text)


def clean(order: dict[str, Any]) -> dict[str, Any]:
    order["name"] = " ".join(order["name"].split()).title()
    order["amount"] = round(float(order["amount"]), 2)
    order["tags"] = sorted({tag.strip().lower() for tag in order["tags"]})
    return order


def enrich(order: dict[str, Any]) -> dict[str, Any]:
    order["total"] = round(sum(line["price"] * line["count"] for line in order["lines"]), 2)
    order["most"] = max(order["lines"], key=lambda line: line["price"])["sku"]
    order["class"] = "large" if order["total"] > 500 else "small"
    order["initials"] = "".join(part[0] for part in order["name"].split())
    return order


def dump(order: dict[str, Any]) -> str:
    return json.dumps(order, sort_keys=True)


def json_lines(count: int) -> list[str]:
    return [
        json.dumps(
            {
                "id": n,
                "name": f"  {WORDS[n % 8]}   {WORDS[n % 5]} {n % 97} ",
                "amount": f"{n * 1.37:.3f}",
                "tags": [f" {WORDS[(n + k) % 8].upper()}" for k in range(4)],
                "lines": [
                    {"sku": f"S{n % 991}-{k}", "price": (n * 7 + k * 13) % 400 / 4, "count": k + 1} for k in range(4)
                ],
            }
        )
        for n in range(count)
    ]


# --- computing ---


def spin(n: int) -> int:
    total = 0
    for k in range(22_000):
        total += k * n
    return total


def uneven(n: int) -> int:
    """Every 50th record costs a hundred times the others."""
    total = 0
    for k in range(400_000 if n % 50 == 0 else 4_000):
        total += k * n
    return total


# --- trivial steps ---


def add(x: int) -> int:
    return x + 1


def double(x: int) -> int:
    return x * 2


def less(x: int) -> int:
    return x - 3


def same(x: int) -> int:
    return x


# --- large arrays ---


def scaled(a: np.ndarray) -> np.ndarray:
    return a * 1.5


def shifted(a: np.ndarray) -> np.ndarray:
    return a + 1.0


def clipped(a: np.ndarray) -> np.ndarray:
    return np.minimum(a, 2.0)


class Arrays:
    """1,500 arrays of 1 MB, of which 100 exist: it is the way that is measured, not the memory."""

    def __init__(self) -> None:
        self.some = [np.full(131_072, n, dtype=np.float64) for n in range(100)]

    def __iter__(self) -> Any:
        for n in range(1_500):
            yield self.some[n % 100]


def orders_chain(text: str) -> str:
    return dump(enrich(clean(parse(text))))


def trivial_chain(x: int) -> int:
    return same(less(double(add(x))))


def arrays_chain(a: np.ndarray) -> np.ndarray:
    return clipped(shifted(scaled(a)))


def works() -> list[Work]:
    """All of them, in the order of the table."""
    lines = json_lines(200_000)
    arrays = Arrays()
    return [
        Work("200,000 JSON lines, 4 steps", (parse, clean, enrich, dump), lambda: lines, len(lines), orders_chain),
        Work("4,000 records of 0.8 ms computing", (spin,), lambda: range(4_000), 4_000, spin),
        Work("5,000 records, every 50th 100 times dearer", (uneven,), lambda: range(5_000), 5_000, uneven),
        Work(
            "1,000,000 ints, 4 trivial steps",
            (add, double, less, same),
            lambda: range(1_000_000),
            1_000_000,
            trivial_chain,
        ),
        Work("1,500 arrays of 1 MB, 3 cheap steps", (scaled, shifted, clipped), lambda: arrays, 1_500, arrays_chain),
    ]

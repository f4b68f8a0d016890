"""Options that stand behind the "?" of a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from taktline.errors import LineError, did_you_mean

KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def options_of(url: str, known: Mapping[str, type]) -> dict[str, Any]:
    """The options of a URL, each as its type says. Raises LineError for those that are not known.

    >>> options_of("redis://host/0/orders?group=pricing&idle=5", {"group": str, "idle": float})
    {'group': 'pricing', 'idle': 5.0}
    """
    options = {}
    for name, text in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise LineError(f"there is no option {name!r} for {urlsplit(url).scheme}://{hint}")
        try:
            options[name] = _truth(text) if known[name] is bool else known[name](text)
        except ValueError:
            raise LineError(f"{name}={text!r} is not {KINDS[known[name]]}") from None
    return options


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")

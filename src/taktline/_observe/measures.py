"""Times, rates and sizes in the units that people would choose."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Seconds in the unit that people would choose.

    >>> duration(0.0002), duration(0.1), duration(20.81), duration(660), duration(15420), duration(None)
    ('0.2 ms', '0.10 s', '20.8 s', '11 m 00 s', '4 h 17 m', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def cost(ns: float) -> str:
    """Nanoseconds a record.

    >>> cost(165), cost(7100), cost(1.3e6), cost(1.5e9)
    ('165 ns/rec', '7.1 µs/rec', '1.3 ms/rec', '1.5 s/rec')
    """
    if ns < 999.5:
        return f"{ns:.0f} ns/rec"
    for limit, unit in ((1e3, "µs"), (1e6, "ms")):
        if ns < 999.5 * limit:
            return f"{ns / limit:.1f} {unit}/rec"
    return f"{ns / 1e9:.1f} s/rec"


def rate(per_second: float) -> str:
    """Records a second.

    >>> rate(48_100), rate(3.2), rate(2_500_000)
    ('48.1 k/s', '3.2 /s', '2.5 M/s')
    """
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= limit:
            return f"{per_second / limit:.1f} {unit}/s"
    return f"{per_second:.1f} /s"


def size(count: float) -> str:
    """Bytes, decimal.

    >>> size(214_000_000), size(512), size(2.5e12)
    ('214 MB', '512 B', '2500.0 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def many(count: int, thing: str) -> str:
    """So many of a thing.

    >>> many(1, "core"), many(20_000, "record")
    ('1 core', '20,000 records')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def bottleneck(name: str) -> str:
    """What takes the time, in a sentence: a step stands in quotes, all else in words.

    >>> bottleneck("parse"), bottleneck("hub")
    ("'parse'", "the caller's process")
    """
    return {"hub": "the caller's process", "source": "the source", "sink": "the sink"}.get(name, repr(name))

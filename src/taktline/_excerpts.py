"""What is shown of the user's data: short, without secrets, and without what would steer a terminal."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

EXCERPT_CHARACTERS = 120  # a record in an error is a hint, not a copy
KEPT_CHARACTERS = 1 << 16  # characters that are kept of a line or a row which is no record
TEXT = 4 * EXCERPT_CHARACTERS  # characters of one text that are looked at: masks may make it shorter
DEPTH = 8  # levels of containers that are opened
NODES = 1_000  # values in an object, beyond which its own repr is not called: it might never end
BITS = 4_000  # of a whole number whose digits are written out
MASK = "****"

# Parts of a key that say what its value is, wherever they stand in it once it is in small letters without separators …
SECRET_PARTS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "apikey", "privatekey", "accesskey",
    "accountkey", "sharedkey", "signingkey", "encryptionkey", "credential", "authorization", "cookie", "jwt", "card",
    "connectionstring", "signature", "sessionid",
)  # fmt: skip
# … and those that count as a word of their own alone: "auth" is in "author" too.
SECRET_WORDS = {"auth", "dsn", "pass", "pin", "cvv", "cvc", "ssn", "otp", "sig", "iban"}
NAMES = {"name", "key", "field", "header", "k"}  # in {"name": "password", "value": "…"}
VALUES = {"value", "val", "v", "content"}

_OBJECTS_OWN: Any = object.__repr__  # shows no attributes


def excerpt(record: Any) -> str:
    """Return a short form of `record` for people, with the values of keys that look secret masked. Never raises.

    >>> excerpt({"id": 7, "card": "4111 1111 1111 1111"})
    "{'id': 7, 'card': '****'}"
    >>> excerpt(["postgresql://me:hunter2@db/shop", ("x-api-key", "k1")])
    "['postgresql://me:****@db/shop', ('x-api-key', '****')]"
    """
    text = ""
    try:
        for piece in _pieces(record, DEPTH):
            text += piece
            if len(text) > EXCERPT_CHARACTERS:
                break
    except Exception as error:  # a record's own repr may do anything
        return f"<{type(record).__name__}, whose repr raises {type(error).__name__}>"
    return harmless(text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 1] + "…")


def masked(text: str) -> str:
    """Return `text` with what looks secret masked: values behind secret keys in JSON, reprs, headers, queries and XML,
    passwords in URLs, bearer tokens and private keys.

    >>> masked('{"user": "me", "api_key": "k1"}'), masked("Authorization: Bearer abc, Accept: */*")
    ('{"user": "me", "api_key": "****"}', 'Authorization: ****, Accept: */*')
    """
    for before_value in _BEFORE_VALUE:
        text = _without_values(text, before_value)
    for pattern, replaced in _ALONE:
        text = pattern.sub(replaced, text)
    return text


def harmless(text: str, keep: str = "") -> str:
    r"""Return `text` with characters that a terminal or a page would act on written as escapes, but for those in `keep`.

    >>> harmless("red: \x1b[31m"), harmless("two\nlines", keep="\n")
    ('red: \\x1b[31m', 'two\nlines')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def readable(text: str) -> str:
    """Return `text` as the program's standard output can show it: a terminal or a file that takes nothing but ASCII gets
    plain signs for those that are drawn with.

    >>> readable("48.1 k/s · 7.1 µs")
    '48.1 k/s · 7.1 µs'
    """
    if text.isascii():
        return text
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return in_ascii(text)
    return text


def in_ascii(text: str) -> str:
    """Return `text` in ASCII: signs that are drawn with become like ones, others escapes.

    >>> in_ascii("a → b · 7.1 µs · 名")
    'a > b | 7.1 us | \\\\u540d'
    """
    return text.translate(ASCII_LIKE).encode("ascii", "backslashreplace").decode()


ASCII_LIKE = str.maketrans("█░▒━╌╸─│▕▏·◄µ→×±≈…–", "#-:=-=-||||<u>x+~~-")  # a sign each, so that tables stay in line


def is_secret(key: Any) -> bool:
    """Say whether the value that belongs to `key` should not be shown.

    >>> [is_secret(key) for key in ("X-API-Key", b"PWD", "userAuth", "author", 7)]
    [True, True, True, False, False]
    """
    if isinstance(key, (bytes, bytearray)):
        key = key[:TEXT].decode("latin-1")
    if not isinstance(key, str):
        return False
    key = key[:TEXT]
    joined = re.sub(r"[^a-z0-9]", "", key.lower())
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", key)
    return any(part in joined for part in SECRET_PARTS) or any(word.lower() in SECRET_WORDS for word in words)


def _pieces(value: Any, depth: int) -> Iterator[str]:
    kind = type(value)
    if isinstance(value, (str, bytes, bytearray)):
        yield _quoted(value)
    elif isinstance(value, int) and value.bit_length() > BITS:
        yield f"<{kind.__name__} of {value.bit_length():,} bits>"
    elif isinstance(value, Mapping):
        yield from _entries("{", value.items(), "}", repr_of_key=True, depth=depth, hide=_named_secret(value))
    elif (fields := _fields(value)) is not None:
        yield from _entries(f"{kind.__name__}(", fields, ")", repr_of_key=False, depth=depth)
    elif isinstance(value, tuple):
        yield from _row("(", value, ",)" if len(value) == 1 else ")", depth)
    elif isinstance(value, (list, deque)):
        yield from _row("[", value, "]", depth)
    elif isinstance(value, AbstractSet) and kind.__module__ in ("builtins", "collections"):
        yield from _row("{", value, "}", depth) if value else [repr(value)]
    elif (shape := _large(value)) is not None:
        yield f"<{kind.__name__}, {shape}>"
    elif kind.__repr__ is not _OBJECTS_OWN and (state := _state(value)) and not _is_small(state):
        yield from _entries(f"{kind.__name__}(", state.items(), ")", repr_of_key=False, depth=depth)
    else:
        yield masked(repr(value)[:TEXT])


def _entries(
    begin: str, entries: Iterable[tuple[Any, Any]], end: str, *, repr_of_key: bool, depth: int, hide: bool = False
) -> Iterator[str]:
    yield begin
    if not depth:
        entries = ()
        yield "…"
    for n, (key, value) in enumerate(entries):
        yield ", " if n else ""
        if repr_of_key:
            yield from _pieces(key, depth - 1)
            yield ": "
        else:
            yield f"{key}="
        if is_secret(key) or (hide and isinstance(key, str) and key.lower() in VALUES):
            yield repr(MASK)
        else:
            yield from _pieces(value, depth - 1)
    yield end


def _row(begin: str, values: Iterable[Any], end: str, depth: int) -> Iterator[str]:
    yield begin
    if not depth:
        values = ()
        yield "…"
    pair = isinstance(values, (tuple, list)) and len(values) == 2 and is_secret(values[0])
    for n, value in enumerate(values):
        yield ", " if n else ""
        if n and pair:
            yield repr(MASK)
        else:
            yield from _pieces(value, depth - 1)
    yield end


def _quoted(text: str | bytes | bytearray) -> str:
    """The repr of its beginning: that of 50 MB would take longer than the step."""
    text = text[:TEXT]
    if isinstance(text, str):
        return repr(masked(str(text)))
    clear = masked(text.decode("latin-1")).encode("latin-1", "replace")
    return repr(clear if isinstance(text, bytes) else bytearray(clear))


def _named_secret(mapping: Mapping[Any, Any]) -> bool:
    """Whether it is a name and its value, and the name is that of a secret."""
    return len(mapping) <= len(NAMES) + len(VALUES) and any(
        isinstance(key, str) and key.lower() in NAMES and is_secret(value) for key, value in mapping.items()
    )


def _fields(value: Any) -> Iterable[tuple[str, Any]] | None:
    """Names and values of a data class, a named tuple or the like; None where it is none, or shows itself another way."""
    kind = type(value)
    names: Iterable[str]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if field.repr]
    elif isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return zip(kind._fields, value, strict=False)
    elif isinstance(declared := getattr(kind, "__attrs_attrs__", None), tuple):
        names = [each.name for each in declared if each.repr]
    else:
        return None
    return ((name, getattr(value, name, None)) for name in names)


def _large(value: Any) -> str | None:
    """The shape of an array or a table whose own repr may be as large as it is, or shows objects; else None."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        return None
    cells = 1
    for n in shape:
        cells *= n
    objects = getattr(getattr(value, "dtype", None), "hasobject", False)
    return f"shape {' × '.join(map(str, shape)) or 'none'}" if cells > NODES or objects is True else None


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, as they lie in it."""
    state = dict(getattr(value, "__dict__", None) or {})
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                state[name] = getattr(value, name)
    return state


def _is_small(state: Mapping[str, Any]) -> bool:
    """Whether few values hang on it, one counted as often as it hangs there: a repr goes to each of them that often."""
    waiting: list[Any] = [state]
    seen = 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > NODES:
            return False
        if isinstance(value, Mapping):
            inner: Iterable[Any] = value.values()
        elif isinstance(value, (list, tuple, AbstractSet, deque)):
            inner = value
        else:
            inner = () if isinstance(value, (str, bytes, int, float, type)) else _state(value).values()
        for n, each in enumerate(inner):
            if n > NODES:
                return False
            waiting.append(each)
    return True


# --- secrets in text ---

_FLAGS = re.IGNORECASE | re.DOTALL
_KEY = r"""(?:(?P<kq>\\*["'])(?P<quoted>[^"'\\\n]{1,80})(?P=kq)|(?P<bare>[A-Za-z_][\w.\-]{0,80}))"""
_BEFORE_VALUE = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        rf"{_KEY}\s*(?:=>|[:=])\s*",  # key=value, "key": "value"
        rf"(?<=[(\[])\s*b?{_KEY}\s*,\s*",  # ("key", "value")
        r"<(?P<quoted>[\w:.\-]{1,80})(?P<bare>)(?:\s[^<>]{0,200})?>",  # <key>value
    )
)
_VALUE = re.compile(
    r"""[bur]{0,2}(?P<q>\\*["'])(?:(?!(?P=q)).)*(?:(?P=q)|$)"""  # quoted, or cut off
    r"""|[\[{(].*"""  # a container: with all that follows it
    r"""|(?:(?:bearer|basic|digest|token|negotiate)\s+)?[^\s,;&"'<>)\]}]+""",
    _FLAGS,
)
_LINE = re.compile(r"[^\r\n\"']+")
_ALONE = tuple(
    (re.compile(pattern, _FLAGS), replaced)
    for pattern, replaced in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*KEY-----|$)", MASK),
        (r"([a-z][a-z0-9+.\-]{0,30}://[^\s/@:\"'?#]*:)[^\s/\"']+@", rf"\1{MASK}@"),  # scheme://user:password@
        (r"\b(?:bearer|basic)\s+[a-z0-9._~+/=\-]{6,}", MASK),
        (r"\beyJ[a-z0-9_\-]{8,}\.[a-z0-9_\-]+(?:\.[a-z0-9_\-]*)?", MASK),  # a JSON web token
    )
)


def _without_values(text: str, before_value: re.Pattern[str]) -> str:
    """`text` without the values that stand behind secret keys."""
    pieces, done, at = "", 0, 0
    while (match := before_value.search(text, at)) is not None:
        at = match.end()
        if is_secret(match["quoted"] or match["bare"]) and (value := _VALUE.match(text, at)) is not None:
            quote = value["q"] or ""
            if "cookie" in (match["quoted"] or match["bare"]).lower() and value[0][0] not in "[{(" + quote:
                value = _LINE.match(text, at) or value  # a header with many values
            pieces += f"{text[done:at]}{quote}{MASK}{quote}"
            done = at = value.end()
    return pieces + text[done:]

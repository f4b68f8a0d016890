"""Footers of Parquet files, read, moved and joined: so files that were each made by themselves become the row groups of one
whose bytes nobody decodes. Of the format's Thrift (the compact protocol) this knows what a footer needs, by field numbers.

A footer is a struct: numbers of fields to their kinds and values. What is not known here stays in it as it was read.
"""

from __future__ import annotations

from typing import Any

from taktline._io.deposits import Deposit

PARQUET_MAGIC = b"PAR1"
SCHEMA, ROWS, GROUPS, KEYS = 2, 3, 4, 5  # of a footer
COLUMNS, GROUP_OFFSET, ORDINAL = 1, 5, 7  # of a row group
CHUNK_OFFSETS, ABOUT = (
    (2, 4, 6),
    3,
)  # of a column chunk: the old place of `ABOUT`, the two page indexes; what is about it
ABOUT_OFFSETS = (9, 10, 11, 14)  # data, index and dictionary pages, Bloom filter
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
Struct = dict[int, tuple[int, Any]]


class Footer:
    """What the end of a whole file in memory, or of one that a worker has left, says of it."""

    def __init__(self, file: bytes | memoryview | Deposit) -> None:
        end = len(file) - 8
        if isinstance(file, Deposit):
            start = end - int.from_bytes(file.piece(end, end + 4).read(), "little")
            self.body: memoryview | Deposit = file.piece(len(PARQUET_MAGIC), start)
            self._fields: Struct = _Reading(file.piece(start, end).read(), 0).struct()
        else:
            start = end - int.from_bytes(file[end : end + 4], "little")
            self.body = memoryview(file)[len(PARQUET_MAGIC) : start]
            self._fields = _Reading(bytes(file[start:end]), 0).struct()

    @property
    def rows(self) -> int:
        return int(self._fields[ROWS][1])

    @property
    def schema(self) -> Any:
        """A value that is equal where the schemas of two files are."""
        return self._fields[SCHEMA][1]

    @property
    def keys(self) -> Any:
        """A value that is equal where the metadata of two files are, and what they say of Arrow's types in them."""
        return self._fields.get(KEYS)

    def groups(self, at: int, first: int) -> list[bytes]:
        """What is to be said of the row groups of this file in another one, where its body begins at the byte `at`, and the
        first of them has the number `first`."""
        by = at - len(PARQUET_MAGIC)
        made = []
        for number, group in enumerate(self._fields[GROUPS][1][1], first):
            for chunk in group[COLUMNS][1][1]:
                _move(chunk, CHUNK_OFFSETS, by)
                _move(chunk[ABOUT][1], ABOUT_OFFSETS, by)
            _move(group, (GROUP_OFFSET,), by)
            if ORDINAL in group:
                if number < 1 << 15:
                    group[ORDINAL] = (I16, number)
                else:
                    del group[ORDINAL]
            made.append(_bytes_of(group))
        return made

    def end(self, groups: list[bytes], rows: int) -> bytes:
        """The end of a file of these row groups that is of this one's schema and metadata."""
        footer = _bytes_of({**self._fields, ROWS: (I64, rows), GROUPS: (LIST, (STRUCT, groups))})
        return footer + len(footer).to_bytes(4, "little") + PARQUET_MAGIC


def _move(fields: Struct, offsets: tuple[int, ...], by: int) -> None:
    for each in offsets:
        kind, value = fields.get(each, (I64, 0))
        if kind == I64 and value:  # 0: nowhere
            fields[each] = (I64, value + by)


class _Reading:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = (kind, kind == TRUE if kind <= FALSE else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (I16, I32, I64):
            return self._signed()
        if kind == BINARY:
            return self._take(self._whole())
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._whole()
            return head & 15, [self._value(head & 15) for _ in range(count)]
        if kind == DOUBLE:
            return self._take(8)
        if kind <= BYTE:  # TRUE and FALSE: in a list, each has a byte
            return self._byte()
        raise ValueError(f"kind {kind} of a field, which no footer has")

    def _take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _whole(self) -> int:
        number = shift = 0
        while (byte := self._byte()) > 127:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def _signed(self) -> int:
        number = self._whole()
        return (number >> 1) ^ -(number & 1)


def _bytes_of(fields: Struct) -> bytes:
    out = bytearray()
    _put(out, STRUCT, fields)
    return bytes(out)


def _put(out: bytearray, kind: int, value: Any) -> None:
    if kind in (I16, I32, I64):
        _put_whole(out, value << 1 ^ value >> 63)
    elif kind == BINARY:
        _put_whole(out, len(value))
        out += value
    elif kind == DOUBLE:
        out += value
    elif kind in (LIST, SET):
        each, values = value
        if len(values) < 15:
            out.append(len(values) << 4 | each)
        else:
            out.append(0xF0 | each)
            _put_whole(out, len(values))
        for one in values:
            _put(out, each, one)
    elif kind != STRUCT:
        out.append(value)
    elif isinstance(value, bytes):  # one that was put already
        out += value
    else:
        _put_struct(out, value)


def _put_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (kind, value) in sorted(fields.items()):
        if 0 < number - before < 16:
            out.append(number - before << 4 | kind)
        else:
            out.append(kind)
            _put_whole(out, number << 1)
        before = number
        if kind > FALSE:
            _put(out, kind, value)
    out.append(0)


def _put_whole(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)

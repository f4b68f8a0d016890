"""Objects of Google's store that are put on a condition, as `_objects.py` has those of S3: by their generations, of which no
two are ever equal. It speaks the store's JSON protocol by way of gcsfs, and only as far as that keeps conditions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from taktline._objects import ANY_TAG, LARGE_FILE, LIST_PAGE, Missing, Objects

MOST_COMPOSED = 32  # objects that are put together at once
OBJECT = "b/{}/o/{}"


class GoogleObjects(Objects):
    """As Objects are. A tag is a generation."""

    nobodys = "1"

    def get(self, path: str) -> tuple[bytes, str] | None:
        try:
            headers, data = self._of("GET", OBJECT, path, alt="media")
        except Missing:
            return None
        return bytes(data), str(headers["X-Goog-Generation"])

    def tag(self, path: str) -> str | None:
        try:
            return str(self._of("GET", OBJECT, path, json_out=True)["generation"])
        except Missing:
            return None

    def put(self, path: str, data: bytes, tag: str | None = ANY_TAG) -> str:
        bucket, key, _ = self._store.split_path(path)
        line = uuid4().hex.encode()  # which is not in the data
        body = b"\r\n".join(
            [
                b"--" + line, b"Content-Type: application/json; charset=UTF-8", b"", json.dumps({"name": key}).encode(),
                b"--" + line, b"Content-Type: application/octet-stream", b"", data, b"--" + line + b"--", b"",
            ]
        )  # fmt: skip
        kind = {"Content-Type": f"multipart/related; boundary={line.decode()}"}
        try:
            made = self._request(
                path, "POST", self._uploads, bucket, uploadType="multipart", headers=kind, data=body, json_out=True,
                **_condition(tag),
            )  # fmt: skip
        except Missing as error:  # there is no such bucket
            raise self._unreachable(path, error.__cause__ or error) from error
        return str(made["generation"])

    def _listed(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        bucket, prefix, _ = self._store.split_path(folder)
        more: dict[str, Any] = {}
        while True:
            page = self._request(
                folder, "GET", "b/{}/o", bucket, prefix=prefix, maxResults=LIST_PAGE, json_out=True, **more
            )
            yield from (
                (f"{bucket}/{each['name']}", {"Size": each["size"], "ETag": each["generation"]})
                for each in page.get("items", [])
            )
            if not page.get("nextPageToken"):
                return
            more = {"pageToken": page["nextPageToken"]}

    def copy(self, path: str, to: str, size: int) -> str:
        return self._rewrite(path, to, ANY_TAG)

    def _rewrite(self, path: str, to: str, tag: str | None) -> str:
        (bucket, key, _), (new_bucket, new_key, _) = self._store.split_path(path), self._store.split_path(to)
        more: dict[str, Any] = {}
        while True:
            done = self._request(
                path, "POST", "b/{}/o/{}/rewriteTo/b/{}/o/{}", bucket, key, new_bucket, new_key, json_out=True,
                headers={"Content-Type": "application/json"}, **_condition(tag), **more,
            )  # fmt: skip
            if done["done"]:
                return str(done["resource"]["generation"])
            more = {"rewriteToken": done["rewriteToken"]}

    def take_away(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._of("DELETE", OBJECT, path)
            except Missing:
                continue

    def take_away_if(self, tags: Mapping[str, str]) -> None:
        for path, tag in tags.items():
            try:
                self._of("DELETE", OBJECT, path, **_condition(tag))
            except Missing:  # somebody else has done that
                continue

    def put_file(self, file: str, path: str, tag: str | None) -> str:
        with open(file, "rb") as opened:
            if os.path.getsize(file) <= LARGE_FILE:
                return self.put(path, opened.read(), tag)
            return self._send(path, iter(lambda: opened.read(LARGE_FILE), b""), tag)

    def join(self, path: str, pieces: Iterable[tuple[Objects, str]], last: bytes, tag: str | None) -> str:
        """They are put together beside the first one, by 32 at a time, and go to their place from there."""
        pieces = list(pieces)
        if not all(self.is_of(of) for of, _ in pieces):
            return self._send(path, _data_of(pieces, last), tag)
        names = [piece for _, piece in pieces]
        stem = f"{names[0]}-joined"
        if last:
            self.put(f"{stem}-last", last)
            names.append(f"{stem}-last")
        level = 0
        while len(names) > 1:
            names = [
                self._compose(names[at : at + MOST_COMPOSED], f"{stem}-{level}-{at}")
                for at in range(0, len(names), MOST_COMPOSED)
            ]
            level += 1
        return self._rewrite(names[0], path, tag)

    def _compose(self, names: list[str], to: str) -> str:
        if len(names) > 1:
            of = [{"name": self._store.split_path(each)[1]} for each in names]
            self._of(
                "POST", f"{OBJECT}/compose", to, json={"sourceObjects": of, "destination": {}},
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            return to
        return names[0]

    def _send(self, path: str, data: Iterator[bytes], tag: str | None) -> str:
        """Bytes that come one after the other, all but the last of a multiple of 256 kB, as one object."""
        bucket, key, _ = self._store.split_path(path)
        headers, _ = self._request(
            path, "POST", self._uploads, bucket, uploadType="resumable", name=key,
            headers={"Content-Type": "application/json"}, data=b"{}", **_condition(tag),
        )  # fmt: skip
        session, at = headers["Location"], 0
        some = next(data, b"")
        while True:
            coming = next(data, None)
            whole = at + len(some) if coming is None else "*"
            span = f"bytes {at}-{at + len(some) - 1}/{whole}" if some else f"bytes */{whole}"
            _, told_back = self._request(path, "PUT", session, headers={"Content-Range": span}, data=some)
            if coming is None:
                return str(json.loads(told_back)["generation"])
            at, some = at + len(some), coming

    def _open(self, beginning: str) -> list[tuple[str, str]]:
        return []  # an upload that was not ended is seen by nobody, and is forgotten by itself

    @property
    def _uploads(self) -> str:
        return f"{self._store.base.removesuffix('/storage/v1/')}/upload/storage/v1/b/{{}}/o"

    def _of(self, method: str, where: str, path: str, **more: Any) -> Any:
        bucket, key, _ = self._store.split_path(path)
        return self._request(path, method, where, bucket, key, **more)

    def _request(self, path: str, method: str, where: str, *names: str, **more: Any) -> Any:
        return self._asked(path, lambda: self._store.call(method, where, *names, **more))

    def _code(self, error: BaseException | None) -> str:
        if isinstance(error, FileExistsError):  # so gcsfs calls a condition that did not hold
            return "412"
        return "404" if isinstance(error, FileNotFoundError) else str(getattr(error, "code", ""))


def _condition(tag: str | None) -> dict[str, str]:
    return {} if tag == ANY_TAG else {"ifGenerationMatch": tag or "0"}


def _data_of(pieces: Iterable[tuple[Objects, str]], last: bytes) -> Iterator[bytes]:
    for of, piece in pieces:
        if (found := of.get(piece)) is None:
            raise Missing(piece)
        yield found[0]
    yield last

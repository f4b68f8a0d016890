"""Objects of a store that are put on a condition: that nobody else has put another one there, or taken it away, meanwhile.

By that alone several hosts agree on whose a journal is: the store itself refuses the one who comes late. S3 does it, and
what speaks its protocol as newly: If-Match and If-None-Match of a put. So does Google's store (`_google_objects.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from taktline._urls import shown, told, url_of
from taktline.errors import LineError, SinkError

ANY_TAG: Literal["*"] = "*"  # as a tag: whatever is there
LIST_PAGE = 1000  # objects that are listed, or deleted, at once
LARGE_FILE = 64 << 20  # bytes of a file that are put at once
MOST_PARTS = 9_000  # of one upload: stores take 10,000
MOST_COPIED = 5 << 30  # bytes that a store copies by one request
REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
NOT_OURS = {
    "NoSuchBucket", "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidBucketName",
    "400", "401", "403",
}  # fmt: skip
MISSING = {"NoSuchKey", "NoSuchUpload", "404"}


Part = Callable[[int, dict[str, str]], str]
"""Puts a part of this number into an upload; its tag."""


class Conflict(Exception):
    """The condition of a request did not hold."""


class Missing(Exception):
    """There is no such object."""


class Objects:
    """The objects of the store that a URL is of, by their paths. A tag changes with the object; None: there is none.

    All raise SinkError, which names the object, where the store cannot be had."""

    nobodys = '"0"'  # the tag of no object

    def __init__(self, store: Any, beside: str) -> None:
        self._store = store
        self._beside = beside

    def is_of(self, other: Objects) -> bool:
        """Whether both are the same store, which copies an object by itself."""
        return self._store is other._store

    def get(self, path: str) -> tuple[bytes, str] | None:
        """An object and its tag."""
        from fsspec.asyn import sync

        try:
            got: tuple[bytes, str] = self._asked(path, lambda: sync(self._store.loop, self._got, path))
        except Missing:
            return None
        return got

    async def _got(self, path: str) -> tuple[bytes, str]:
        answer = await self._store._call_s3("get_object", **self._named(path))
        async with answer["Body"] as body:
            return await body.read(), answer["ETag"]

    def tag(self, path: str) -> str | None:
        try:
            return str(self._call("head_object", path)["ETag"])
        except Missing:
            return None

    def put(self, path: str, data: bytes, tag: str | None = ANY_TAG) -> str:
        """Put an object there where the tag is still this one; the new tag. Raises Conflict."""
        try:
            return str(self._call("put_object", path, Body=data, **_condition(tag))["ETag"])
        except Missing as error:  # it was taken away
            raise Conflict(path) from error

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each object whose path begins so."""
        return {path: int(each["Size"]) for path, each in self._listed(folder)}

    def tags(self, folder: str) -> dict[str, str]:
        """The tag of each object whose path begins so."""
        return {path: str(each["ETag"]) for path, each in self._listed(folder)}

    def _listed(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        bucket, prefix, _ = self._store.split_path(folder)
        more: dict[str, Any] = {}
        while True:
            list_them = partial(
                self._store.call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=LIST_PAGE, **more
            )
            page = self._asked(folder, list_them)
            yield from ((f"{bucket}/{each['Key']}", each) for each in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def copy(self, path: str, to: str, size: int) -> str:
        """An object of so many bytes to another place in the same store, which does that by itself, whatever is there; the
        tag there. Raises Missing."""
        if size <= MOST_COPIED:
            answer = self._call("copy_object", to, CopySource=self._named(path))
            return str(answer["CopyObjectResult"]["ETag"])
        self._store.invalidate_cache(path)  # where it was not there yet, when somebody listed the folder
        self._asked(path, lambda: self._store.cp_file(path, to))
        return self.tag(to) or ""

    def take_away(self, paths: Iterable[str]) -> None:
        """Those that are there."""
        left = [self._named(path) for path in paths]
        while left:
            some, left = left[:LIST_PAGE], left[LIST_PAGE:]
            bucket = some[0]["Bucket"]
            objects = {"Objects": [{"Key": each["Key"]} for each in some], "Quiet": True}
            answer = self._asked(bucket, partial(self._store.call_s3, "delete_objects", Bucket=bucket, Delete=objects))
            for error in answer.get("Errors", []):
                raise SinkError(
                    f"'{bucket}/{error['Key']}' cannot be taken away: {error.get('Message', error['Code'])}"
                )

    def take_away_if(self, tags: Mapping[str, str]) -> None:
        """Each object that is there, where it has this tag still. Raises Conflict."""
        for path, tag in tags.items():
            try:
                self._call("delete_object", path, IfMatch=tag)
            except Missing:  # somebody else has done that
                continue

    def clear(self, beginning: str, still: Callable[[], None] | None = None) -> None:
        """All objects whose paths begin so, and the uploads of such that hosts have begun which are gone. `still`: raises
        where some may be somebody else's; what comes there after it was asked stays."""
        uploads, found = self._open(beginning), list(self.sizes(beginning))
        if still is not None and (uploads or found):
            still()
        self._give_up(uploads)
        self.take_away(found)

    def put_file(self, file: str, path: str, tag: str | None) -> str:
        """A file as `put` does its bytes. Raises Conflict."""
        size = os.path.getsize(file)
        with open(file, "rb") as opened:
            if size <= LARGE_FILE:
                return self.put(path, opened.read(), tag)
            some = max(LARGE_FILE, -(-size // MOST_PARTS))

            def part(number: int, upload: dict[str, str]) -> str:
                return self._data(path, opened.read(some), number, upload)

            try:
                return self._together(path, [part] * -(-size // some), tag)
            except Missing as error:  # somebody else has given it up
                raise Conflict(path) from error

    def join(self, path: str, pieces: Iterable[tuple[Objects, str]], last: bytes, tag: str | None) -> str:
        """Put an object of all these there, where its tag is still this one: each of 5 MB or more, but for the last one.
        The new tag. Raises Conflict, Missing."""
        parts: list[Part] = [partial(self._part, path, of, piece) for of, piece in pieces]
        if last:
            parts.append(partial(self._data, path, last))
        return self._together(path, parts, tag)

    def _together(self, path: str, parts: Iterable[Part], tag: str | None) -> str:
        """One object of parts, each put by a call with its number and the upload that it is of. What was begun there and not
        ended, by an attempt whose host is gone, is given up."""
        self._give_up([(begun, upload) for begun, upload in self._open(path) if begun == path])
        upload = {"UploadId": self._call("create_multipart_upload", path)["UploadId"]}
        try:
            tags = [part(number, upload) for number, part in enumerate(parts, 1)]
            told = {"Parts": [{"PartNumber": number, "ETag": each} for number, each in enumerate(tags, 1)]}
            done = self._call("complete_multipart_upload", path, MultipartUpload=told, **upload, **_condition(tag))
        except BaseException:
            try:
                self._call("abort_multipart_upload", path, **upload)
            except Missing:  # another attempt has given it up
                pass
            raise
        return str(done["ETag"])

    def _part(self, path: str, of: Objects, piece: str, number: int, upload: dict[str, str]) -> str:
        if self.is_of(of):
            source = of._named(piece)
            answer = self._call("upload_part_copy", path, PartNumber=number, CopySource=source, **upload)
            return str(answer["CopyPartResult"]["ETag"])
        if (found := of.get(piece)) is None:
            raise Missing(piece)
        return self._data(path, found[0], number, upload)

    def _data(self, path: str, data: bytes, number: int, upload: dict[str, str]) -> str:
        return str(self._call("upload_part", path, PartNumber=number, Body=data, **upload)["ETag"])

    def _give_up(self, uploads: Iterable[tuple[str, str]]) -> None:
        for path, begun in uploads:
            try:
                self._call("abort_multipart_upload", path, UploadId=begun)
            except (SinkError, Missing):  # it is given up already: that is no reason to lose the results
                continue

    def _open(self, beginning: str) -> list[tuple[str, str]]:
        """Uploads of objects whose paths begin so; none where they may not be listed."""
        try:
            return list(self._begun(beginning))
        except (SinkError, Missing):
            return []

    def _begun(self, beginning: str) -> Iterator[tuple[str, str]]:
        """What is open of the objects whose paths begin so."""
        where = self._named(beginning)
        more: dict[str, Any] = {}
        while True:
            given = {"Bucket": where["Bucket"], "Prefix": where["Key"], **more}
            page = self._asked(beginning, partial(self._store.call_s3, "list_multipart_uploads", **given))
            yield from ((f"{where['Bucket']}/{each['Key']}", each["UploadId"]) for each in page.get("Uploads", []))
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _named(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._store.split_path(path)
        return {"Bucket": bucket, "Key": key}

    def _call(self, method: str, path: str, **more: Any) -> Any:
        return self._asked(path, lambda: self._store.call_s3(method, **self._named(path), **more))

    def _asked(self, path: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as error:  # s3fs hands on errors of its own, of botocore and of aiohttp
            code = self._code(error)
            if code in REFUSED:
                raise Conflict(path) from error
            if code in MISSING or (not code and isinstance(error, FileNotFoundError)):
                raise Missing(path) from error
            raise self._unreachable(path, error) from error

    def _unreachable(self, path: str, error: BaseException) -> SinkError:
        name = shown(url_of(self._store, path, self._beside))
        return SinkError(f"{name!r} cannot be reached: {told(error)}", path=name)

    def refusal(self, error: SinkError, what: str, path: str) -> LineError | SinkError:
        """What to raise where this is why an object cannot be had: LineError where another place must be named, or other keys
        given, and SinkError where the same may be had later, as of a store that is away."""
        text, cause = f"{what}: {error}", error.__cause__
        if isinstance(cause, Missing) or self._code(cause) in NOT_OURS:  # no such bucket, or somebody else's
            return LineError(text)
        return SinkError(text, path=path)

    def _code(self, error: BaseException | None) -> str:
        """S3's own name for what is wrong, wherever it stands in what was raised."""
        while error is not None:
            answer = getattr(error, "response", None)
            if isinstance(answer, dict):
                return str(answer.get("Error", {}).get("Code", ""))
            error = error.__cause__
        return ""


def _condition(tag: str | None) -> dict[str, str]:
    if tag is None:
        return {"IfNoneMatch": "*"}
    return {} if tag == ANY_TAG else {"IfMatch": tag}

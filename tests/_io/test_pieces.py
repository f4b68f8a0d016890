"""What goes to a URL, in pieces beside a journal: whatever the writes were, the object is the same, and nothing is left."""

from __future__ import annotations

import random
from uuid import uuid4

import pytest

from taktline import SinkError
from taktline._io import pieces
from taktline._io.pieces import Pieces
from taktline._stores import objects_at
from taktline.errors import OutputLost

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
LONG = random.Random(1).randbytes(19 << 20)


@pytest.fixture
def folder(conditional):
    return f"{conditional}/{uuid4().hex}"


def there(folder):
    store, path = objects_at(folder)
    return sorted(each.removeprefix(path + "/") for each in store.sizes(path + "/"))


def begun(folder, name="out"):
    store, path = objects_at(f"{folder}/j")
    store.put(path, b"")  # a journal
    made = Pieces(f"{folder}/{name}", f"{folder}/j")
    made.begin()
    return made


def content(url):
    with fsspec.open(url) as file:
        return file.read()


@pytest.mark.parametrize("length", [0, 1, 8 << 20, (8 << 20) + 1, 19 << 20])
def test_what_was_written_is_one_object(folder, length):
    made = begun(folder)
    for at in range(0, length, 1 << 20):
        made.write(memoryview(LONG)[at : min(length, at + (1 << 20))])
        made.save()
    made.publish()
    assert content(f"{folder}/out") == LONG[:length]
    made.clear()
    assert there(folder) == ["j", "out"]


def test_another_attempt_goes_on_behind_a_position_whatever_came_then(folder):
    made = begun(folder)
    made.write(LONG[: 10 << 20])
    position = made.save()
    made.write(LONG[10 << 20 :])
    made.save()
    for _ in range(2):
        later = Pieces(f"{folder}/out", f"{folder}/j")
        later.resume(position)
        later.write(LONG[10 << 20 : 12 << 20])
        again = later.save()
    last = Pieces(f"{folder}/out", f"{folder}/j")
    last.resume(again)
    last.write(LONG[12 << 20 :])
    last.publish()
    assert content(f"{folder}/out") == LONG
    last.clear()
    assert there(folder) == ["j", "out"]


@pytest.mark.parametrize("which", ["-00000", "-rest-1"])
def test_what_is_gone_is_lost(folder, which):
    made = begun(folder)
    made.write(LONG[: 10 << 20])
    position = made.save()
    store, path = objects_at(folder)
    store.take_away([each for each in store.sizes(path) if each.endswith(which)])
    with pytest.raises(OutputLost, match=f"is gone: the object .*{which}"):
        Pieces(f"{folder}/out", f"{folder}/j").resume(position)


def test_no_upload_stays_open_whenever_it_was_broken_off(s3):
    folder = f"{s3}/{uuid4().hex}"
    store, path = objects_at(f"{folder}/out")
    upload = store._store.call_s3("create_multipart_upload", **store._named(path))
    other = store._store.call_s3("create_multipart_upload", **store._named(path + "-of-somebody-else"))
    made = begun(folder)
    made.write(LONG)
    made.publish()
    assert content(f"{folder}/out") == LONG
    (left,) = store._store.list_multipart_uploads("shop")
    assert left["UploadId"] == other["UploadId"] != upload["UploadId"]
    store._store.call_s3(
        "abort_multipart_upload", **store._named(left["Key"] and f"shop/{left['Key']}"), UploadId=left["UploadId"]
    )


@pytest.mark.parametrize("length", [5, 9 << 20])
def test_what_somebody_has_put_there_meanwhile_stays(folder, length):
    made = begun(folder)
    made.write(LONG[:length])
    store, path = objects_at(f"{folder}/out")
    store.put(path, b"another attempt's")
    with pytest.raises(SinkError, match="was replaced while the run was at work"):
        made.publish()
    assert content(f"{folder}/out") == b"another attempt's"
    assert not folder.startswith("s3") or store._store.list_multipart_uploads("shop") == []


def test_what_was_there_before_is_replaced(folder):
    store, path = objects_at(f"{folder}/out")
    store.put(path, b"old")
    made = begun(folder)
    made.write(b"new")
    made.publish()
    assert content(f"{folder}/out") == b"new"


def test_an_attempt_that_is_over_takes_away_what_nobody_would(folder):
    store, path = objects_at(f"{folder}/j")
    made = begun(folder)
    made.write(b"one")
    position = made.save()
    store.put(path, str(position).encode())  # the journal tells of it
    made.suspend()
    assert len(there(folder)) == 2
    late = Pieces(f"{folder}/out", f"{folder}/j")
    late.resume(position)
    late.save()
    late.suspend()  # and of that it does not
    assert len(there(folder)) == 2
    done = Pieces(f"{folder}/out", f"{folder}/j")
    done.resume(position)
    store.put(path, (str(done.save()) + '"state": "done"').encode())
    done.suspend()
    assert len(there(folder)) == 2
    done.clear(position)
    assert there(folder) == ["j"]


@pytest.mark.parametrize("store", ["gs", "memory"])
def test_other_stores_get_it_from_there(request, folder, store):
    target = f"{request.getfixturevalue(store) if store == 'gs' else 'memory://shop'}/{uuid4().hex}"
    made = Pieces(target, f"{folder}/j")
    made.begin()
    made.write(LONG[: 9 << 20])
    made.publish()
    assert content(target) == LONG[: 9 << 20]
    made.clear()


def test_pieces_grow(folder, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 4)
    monkeypatch.setattr(pieces, "TWICE", 2)
    made = begun(folder)
    made.write(LONG[:45])
    assert sorted(objects_at(folder)[0].sizes(made._folder).values()) == [4, 4, 8, 8, 16]
    made.clear()

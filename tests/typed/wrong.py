"""Planted faults, one a line. Behind each stands who finds it: "both", "mypy", "pyright" or "nobody". Nothing here is run."""

from __future__ import annotations

from right import Scaled, Squares, doubled, fetched, half, parse, positive, shown, texts, words

from taktline import batch, expand, keep, line, per_worker, read, serial, step, write

# neighbours that do not fit
line(half, parse)  # both
line(parse, half, parse)  # both
line(parse, shown, half)  # both
line(parse, half, shown, half)  # both
line(parse, half, shown, str.upper, half)  # both
line(step(half), step(parse))  # both
line(parse, serial(parse))  # both
line(half, per_worker(lambda: parse))  # both
line(fetched, half)  # both
line(line(parse, half), words)  # nobody
line(parse).then(words)  # both
line(parse).then(line(words))  # both
line(parse, half).then(lambda x: x.upper())  # both
line(parse).keep(lambda n: n.strip())  # both
line(parse).expand(half)  # both
line(parse).batch(lambda numbers: [n.upper() for n in numbers])  # both
line(words).batch(doubled)  # both

# sources and sinks
line(parse)([1, 2])  # both
line(parse)(Squares())  # both
line(parse)(7)  # both
line(half).run([1], texts.append)  # both
line(parse).run(["1"], "out.jsonl")  # both
line(half)([1]).drain(texts.append)  # both
read("x.jsonl", formatt="csv")  # both
write("x.jsonl", mode="overwrite")  # both

# what comes out
left: list[str] = list(line(parse)(texts))  # both
total: str = sum(line(parse)(texts))  # both

# options and builders
line(parse)(texts, batch_sizy=10)  # both
line(parse)(texts, how="threads")  # both
line(parse)(texts, workers="2")  # both
line(parse)(texts, start="spawn")  # both
line(parse).plan(texts, workrs=2)  # both
line(parse).compare(texts, limits=10)  # both
line(parse).compare(texts, on_error="keep")  # both
line(parse).check(texts, recrd=3)  # both
step(parse, retrys=2)  # both
step(parse, kind="processes")  # both
keep(positive, nam="p")  # both
batch(doubled, form="panda")  # both
batch(doubled, siz=3)  # both
expand(half)  # both
per_worker(Scaled)  # both
per_worker(Scaled, "2")  # both
line(parse, nam="x")  # both
line(3)  # both

# beyond what is looked at: known
line(parse, keep(words), half)  # nobody
line(half, keep(lambda x: x.upper()), shown)  # nobody
line(words, batch(doubled), half)  # nobody
line(parse, expand(words))  # nobody
line(parse)("12")  # nobody
line(parse, list)  # nobody
line(str, sorted, half)  # nobody
line(parse, half, shown, str.upper, len, half, shown, parse, words)  # nobody

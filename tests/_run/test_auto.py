"""What is tried out on a run's records loses none of them."""

from __future__ import annotations

import pytest

from taktline import expand, keep, line


def parts(text):
    return text.split(" ")


def worked(word):
    return [word, sum(map(ord, word * 20))]


@pytest.mark.parametrize("start", ["auto", "threads"])
def test_all_results_of_an_expand_come_though_two_threads_may_be_tried(start):
    texts = [" ".join(map(str, range(n % 7 * 900 + 40))) for n in range(60)]
    flow = line(expand(parts), keep(str.isdigit), worked)
    expected = [worked(word) for text in texts for word in parts(text)]
    for _ in range(4):
        assert list(flow(texts, workers=2, start=start)) == expected
        got = []
        assert flow.run(texts, got.append, workers=2, start=start).records_out == len(expected)
        assert got == expected

"""The line over a few orders, and the promise that it gives what a loop over the same functions gives."""

from pathlib import Path

from steps import flow, in_stock, label, priced

import taktline
from taktline.testing import same_as_loop

ORDERS = list(taktline.read(Path(__file__).with_name("orders.jsonl")))


def test_an_order_is_labelled_with_its_gross_price():
    order = {"id": 1, "title": "Kite", "kind": "toy", "count": 2, "price": 10.0, "stock": 5}
    assert list(flow([order])) == [{"id": 1, "text": "2 × Kite: 23.80"}]


def test_it_is_the_loop():
    assert list(flow(ORDERS)) == [label(priced(order)) for order in ORDERS if in_stock(order)]


def test_every_technique_gives_the_loops_answer():
    same_as_loop(flow, ORDERS, workers=2)

"""The steps of this project, apart from the DAGs: plain functions, to be tested and tried out without Airflow.

taktline run include/lines.py:nightly --in include/data/orders.jsonl --out -
"""

from taktline import batch, keep, line


def is_paid(order):
    return order["paid"]


def priced(order):
    return {**order, "total": round(order["amount"] * order["price"], 2)}


def scored(orders):
    """Up to 512 orders at once: the place for NumPy, pandas or a model."""
    return [{**order, "large": order["total"] >= 100} for order in orders]


def decoded(message):
    """A Pub/Sub message as the record that goes into the file."""
    return {"id": message.id, "text": message.data.decode()}


nightly = line(keep(is_paid), priced, batch(scored, size=512), name="nightly orders")

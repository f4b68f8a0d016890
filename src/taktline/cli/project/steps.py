"""Orders, priced: each step is a plain function of one record, and `flow` puts them in a row."""

from taktline import keep, line

TAX = {"book": 0.07, "toy": 0.19}


def in_stock(order):
    return order["stock"] >= order["count"]


def priced(order):
    net = order["count"] * order["price"]
    return {**order, "net": round(net, 2), "gross": round(net * (1 + TAX[order["kind"]]), 2)}


def label(order):
    return {"id": order["id"], "text": f"{order['count']} × {order['title']}: {order['gross']:.2f}"}


flow = line(keep(in_stock), priced, label)

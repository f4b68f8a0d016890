"""Results into a sink, piece by piece, as a run may give them."""

from __future__ import annotations

import pickle

import pyarrow as pa


def write_pieces(sink, pieces):
    """Each piece is results in a list, a table, or (table,): one that a worker makes the sink's bytes of."""
    encode = pickle.loads(pickle.dumps(sink.table_encoder))
    sink.open()
    try:
        for piece in pieces:
            if isinstance(piece, tuple) and not piece[0].num_rows:  # which no worker makes
                sink.write_table(*piece)
            elif isinstance(piece, tuple):
                sink.write_encoded(encode(*piece), piece[0].num_rows)
            elif isinstance(piece, pa.Table):
                sink.write_table(piece)
            else:
                sink.write(piece)
        sink.commit()
    except BaseException:
        sink.abort()
        raise

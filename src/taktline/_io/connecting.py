"""From a database's URL to a connection: each kind has a file of its own, which is imported for it alone."""

from __future__ import annotations

from taktline._io.database import SQLITE, Database


def connected(url: str, writing: bool) -> Database:
    """Raises Unreachable."""
    if url.startswith(SQLITE):
        from taktline._io.sqlite import Sqlite

        return Sqlite(url.removeprefix(SQLITE), writing)
    from taktline._io.postgres import Postgres

    return Postgres(url, writing)

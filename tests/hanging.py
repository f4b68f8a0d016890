"""Results that never come: who waits for them is cancelled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest


async def cancelled_once_hanging(results: Awaitable[Any], folder: Path) -> None:
    """Wait for the results, and be cancelled once two workers hang in a step, which have left a file each in `folder`."""
    task = asyncio.ensure_future(results)
    while len(os.listdir(folder)) < 2:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

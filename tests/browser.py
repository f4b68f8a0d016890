"""A page in a real browser: Chromium without a window, driven by its own protocol over aiohttp."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0  # seconds for what a page does by itself, on a machine that is busy


def found():
    """The browser's command; the test is left out where there is none."""
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return command


class Page:
    """One page of it. `said`: what it has written to its console as errors, and what it could not load."""

    def __init__(self, socket):
        self._socket = socket
        self._count = 0
        self._answers = {}
        self.said = []

    async def tell(self, method, **parameters):
        """Have the browser do this; its answer."""
        self._count += 1
        number = self._count
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while number not in self._answers:
            self._heard(json.loads((await asyncio.wait_for(self._socket.receive(), PATIENCE)).data))
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return answer["result"]

    def _heard(self, message):
        if "id" in message:
            self._answers[message["id"]] = message
        elif message["method"] == "Runtime.exceptionThrown":
            self.said.append(message["params"]["exceptionDetails"])
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.said.append(message["params"]["entry"]["text"])
        elif message["method"] == "Runtime.consoleAPICalled" and message["params"]["type"] == "error":
            self.said.append(message["params"]["args"])

    async def value(self, code):
        """What this JavaScript gives."""
        answer = await self.tell("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    async def until(self, code):
        """Wait for this JavaScript to give something that is true; that."""
        async with asyncio.timeout(PATIENCE):
            while not (value := await self.value(code)):
                await asyncio.sleep(0.05)
            return value

    async def open(self, url, *, width, height=900, dark=False):
        """Show this page, so wide."""
        for part in ("Page", "Runtime", "Log"):
            await self.tell(f"{part}.enable")
        await self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.tell("Emulation.setEmulatedMedia", features=scheme)
        await self.tell("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def picture(self):
        """The whole page as PNG."""
        whole = await self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(whole["data"])


@asynccontextmanager
async def page():
    """A page of a browser of its own."""
    aiohttp = pytest.importorskip("aiohttp")
    command = [
        found(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", "--hide-scrollbars", "about:blank",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = subprocess.Popen(
            [*command[:-1], f"--user-data-dir={folder}", command[-1]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            address = await asyncio.to_thread(_address, browser.stderr)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{address}/json/list") as answer:
                    pages = json.loads(await answer.text())
                where = next(each["webSocketDebuggerUrl"] for each in pages if each["type"] == "page")
                async with session.ws_connect(where, max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            os.killpg(browser.pid, 9)
            browser.wait()
            browser.stderr.close()


def _address(lines):
    for line in lines:
        if found := re.search(r"ws://([^/]+)/", line):
            return found[1]
    raise AssertionError("the browser has ended")

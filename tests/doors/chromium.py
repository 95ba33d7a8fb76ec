"""A real browser without a window, driven by W3C WebDriver: what pages do in one that people use."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name under which WebDriver gives an element (W3C WebDriver §12.1)."""


READS_WITHIN_S = 30.0


class Chromium:
    """One window."""

    def __init__(self, http: httpx2.AsyncClient, session: str) -> None:
        self._http = http
        self._session = session

    async def open(self, url: str) -> None:
        await self._do("POST", "/url", url=url)

    async def url(self) -> str:
        """Where the window is now."""
        return str(await self._do("GET", "/url"))

    async def text(self) -> str:
        """What a person reads now."""
        script = "return document.body ? document.body.innerText : ''"
        return str(await self._do("POST", "/execute/sync", script=script, args=[]))

    async def reads(self, part: str) -> str:
        """What a person reads, once this is in it: a page that was left may be there for a moment.

        Raises:
            TimeoutError: it never was.
        """
        text = ""
        try:
            async with asyncio.timeout(READS_WITHIN_S):
                while part not in (text := await self.text()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"{part!r} is not in what the page says: {text!r}") from None
        return text

    async def type(self, selector: str, text: str) -> None:
        await self._do("POST", f"/element/{await self._find(selector)}/value", text=text)

    async def click(self, selector: str) -> None:
        """Click; what this leads to may take a moment."""
        await self._do("POST", f"/element/{await self._find(selector)}/click")

    async def cookies(self) -> dict[str, dict[str, Any]]:
        """Those that the page where the window is would send, by name."""
        return {each["name"]: each for each in await self._do("GET", "/cookie")}

    async def complaints(self) -> list[str]:
        """What the browser refused or could not do, since this was last asked."""
        entries = await self._do("POST", "/se/log", type="browser")
        return [str(each["message"]) for each in entries]

    async def _find(self, selector: str) -> str:
        found = await self._do("POST", "/element", using="css selector", value=selector)
        return str(found[ELEMENT])

    async def _do(self, method: str, path: str, **body: Any) -> Any:
        sent = body if method == "POST" else None
        answer = await self._http.request(method, f"/session/{self._session}{path}", json=sent)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {value['error']}: {value['message']}")
        return value


@asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    """A window of a browser of its own, which knows nothing and keeps nothing."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        driver = await asyncio.create_subprocess_exec(
            "chromedriver", "--port=0", stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            base = f"http://127.0.0.1:{await _port(driver)}"
            async with httpx2.AsyncClient(base_url=base, timeout=60, trust_env=False) as http:
                session = await _session(http, Path(folder))
                try:
                    yield Chromium(http, session)
                finally:
                    await http.delete(f"/session/{session}")
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            await driver.wait()


async def _port(driver: asyncio.subprocess.Process) -> int:
    assert driver.stdout is not None
    while line := (await driver.stdout.readline()).decode():
        _, found, port = line.partition("started successfully on port ")
        if found:
            return int(port.strip().rstrip("."))
    raise RuntimeError("chromedriver did not start")


async def _session(http: httpx2.AsyncClient, folder: Path) -> str:
    flags = [*FLAGS, f"--user-data-dir={folder}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    options = {"binary": shutil.which("chromium"), "args": flags}
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    made = await http.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
    made.raise_for_status()
    return str(made.json()["value"]["sessionId"])

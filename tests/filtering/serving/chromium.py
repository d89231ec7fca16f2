"""Headless Chromium, driven over a pipe by its DevTools protocol: no package, no port and no download.

Only what tests of one page need: go somewhere, evaluate, wait, click, type, press keys, look at what was asked of the
network and what the console said. Source: https://chromedevtools.github.io/devtools-protocol/ (stable parts).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Chromium reads commands from file 3 and writes answers to file 4.
_LAUNCH = "import os,sys;r,w=map(int,sys.argv[1:3]);os.dup2(r,3);os.dup2(w,4);os.execv(sys.argv[3],sys.argv[3:])"
_KEYS = {
    "Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowDown": (40, ""), "ArrowUp": (38, ""),
    "ArrowLeft": (37, ""), "ArrowRight": (39, ""), "End": (35, ""), "Home": (36, ""), " ": (32, " "),
}  # fmt: skip


def chromium() -> str | None:
    """Where a Chromium lies, None without one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One Chromium; pages of it share nothing, for each has a context of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (ours[0], theirs[1])]
        arguments = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run",
            "--disable-gpu", "--disable-extensions", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--disable-dev-shm-usage", "--no-default-browser-check",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # it refuses to run with one as root
        launch = [sys.executable, "-c", _LAUNCH, *map(str, high), *arguments]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(launch, pass_fds=high, stdin=quiet, stdout=quiet, stderr=quiet)
        for one in (ours[0], theirs[1], *high):
            os.close(one)
        self._out, self._in = ours[1], theirs[0]
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(5)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile goes to ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        until = time.monotonic() + 60
        while True:
            answer = self._read(until - time.monotonic())
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def page(self, width: int = 1280, height: int = 900, *, dark: bool = False, scale: float = 1) -> Page:
        """A new page in a context of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        return page

    def _read(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(seconds, 0))[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """One command to this tab."""
        return self._browser.call(method, self._session, **values)

    def go(self, address: str, until: str = "document.readyState === 'complete'") -> None:
        """Load an address and wait until an expression holds in it."""
        self.call("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address.partition('#')[0])}) && ({until})")

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression, a promise's once it is there."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 20) -> Any:
        """Wait until an expression is true; objects come back as True."""
        until = time.monotonic() + seconds
        while True:
            try:
                found = self.value(f"(one => typeof one === 'object' ? Boolean(one) : one)({expression})")
            except RuntimeError as error:  # the page is just being replaced by the next
                found = None
                last: object = error
            else:
                last = found
            if found:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"{expression}: {last}; console: {self.console()}; {self.text('body')[:800]}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """Text of the first element. (innerText would leave out what Chromium has not laid out, off the screen.)"""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """Text of all elements that are shown."""
        query = f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.checkVisibility())"
        found: list[str] = self.value(f"{query}.map(e => e.textContent)")
        return found

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """A key, down and up."""
        code, text = _KEYS[key]
        both = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 * shift,
        }
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **both)
            self.call("Input.dispatchKeyEvent", type="keyUp", **both)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        return [one["request"]["url"] for one in self._happened("Network.requestWillBeSent")]

    def console(self) -> list[str]:
        """Errors and warnings of the console, and scripts that failed."""
        said = [
            " ".join(str(part.get("value", part.get("description"))) for part in one["args"])
            for one in self._happened("Runtime.consoleAPICalled")
            if one["type"] in ("error", "warning", "assert")
        ]
        said += [str(one["exceptionDetails"]) for one in self._happened("Runtime.exceptionThrown")]
        entries = [one["entry"] for one in self._happened("Log.entryAdded")]
        return said + [f"{one['text']} {one.get('url', '')}" for one in entries if one["level"] in ("error", "warning")]

    def _happened(self, method: str) -> list[dict[str, Any]]:
        return [
            one["params"]
            for one in self._browser.events
            if one.get("method") == method and one.get("sessionId") == self._session
        ]

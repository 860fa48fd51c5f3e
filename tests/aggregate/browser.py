"""Drive a real browser without a window over W3C WebDriver: chromium, where it is installed."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
QUIET = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """`with Browser(folder) as browser: browser.open(path)`; `folder` is a fresh profile."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900):
        self.process = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self.process.stdout:
            if "successfully on port" in line:
                port = line.strip().rstrip(".").rpartition(" ")[2]
                self.address = f"http://127.0.0.1:{port}/session"
                break
        options = [*QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": options},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.session = ""
        self.session = "/" + self.post("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._ask("DELETE", "")
        self.process.terminate()
        self.process.wait(timeout=600)

    def _ask(self, method: str, what: str, value: dict | None = None):
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.address + self.session + what, data, method=method)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)["value"]

    def post(self, what: str, value: dict):
        return self._ask("POST", what, value)

    def open(self, path: Path) -> None:
        self.post("/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: object):
        """What a script returns in the page."""
        return self.post("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str) -> None:
        """Wait until a script returns true; ten minutes at most, on a machine however busy."""
        for _ in range(6000):
            if self.run(script):
                return
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}")

    def developer(self, command: str, **parameters: object):
        """A command of the browser's developer tools, e.g. Emulation.setDeviceMetricsOverride."""
        return self.post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int) -> None:
        self.developer(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def colours(self, scheme: str) -> None:
        """`dark` or `light`."""
        self.developer(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def screenshot(self, path: Path) -> None:
        shot = self.developer("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(shot["data"]))

    def console(self) -> list[str]:
        """What the page has complained of."""
        return [
            f"{entry['level']} {entry['message']}"
            for entry in self.post("/se/log", {"type": "browser"})
        ]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        events = [
            json.loads(entry["message"])["message"]
            for entry in self.post("/se/log", {"type": "performance"})
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

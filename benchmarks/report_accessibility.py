"""Looks at a report in headless Chromium as people do: axe-core's findings, sizes of text, scrolling, pictures.

python benchmarks/report_accessibility.py REPORT.html --axe node_modules/axe-core/axe.min.js
    [--pictures FOLDER] [--out benchmarks/results/report-accessibility.json]

Needs chromium and chromedriver (Debian: chromium, chromium-driver) and axe-core (`npm install axe-core`); nothing else:
WebDriver is JSON over HTTP. Exit code 1 where anything is found.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

VIEWS = [(width, theme) for width in (390, 1280) for theme in ("light", "dark")]
LEAST_PX = 11
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]

LOOK = """
const least = arguments[0], small = new Map();
document.querySelectorAll("details").forEach(one => one.open = true);
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  if (!own || !node.getClientRects().length) continue;
  let size = parseFloat(getComputedStyle(node).fontSize);
  const drawing = node.ownerSVGElement;
  if (drawing) size *= drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  if (size < least) small.set(node.textContent.trim().slice(0, 40), Math.round(100 * size) / 100);
}
const root = document.documentElement;
const wide = [...document.querySelectorAll("body *")].filter(node =>
  !node.closest(".wide, .at-narrow, svg") && node.getBoundingClientRect().right > root.clientWidth + 1);
return {
  small: Object.fromEntries(small),
  scrolls_sideways: root.scrollWidth > root.clientWidth ? root.scrollWidth : 0,
  too_wide: wide.slice(0, 5).map(node => node.tagName + ": " + node.textContent.trim().slice(0, 40)),
  height: root.scrollHeight,
};
"""
AXE = """
const done = arguments[arguments.length - 1];
document.querySelectorAll("details").forEach(one => one.open = true);
axe.run(document).then(found => done({
  version: axe.version, passes: found.passes.length,
  incomplete: found.incomplete.map(one => one.id + " (" + one.nodes.length + ")"),
  violations: found.violations.map(one => ({id: one.id, impact: one.impact, nodes: one.nodes.length,
    first: one.nodes.slice(0, 3).map(node => node.html.slice(0, 160) + " | " + node.failureSummary)}))
}), error => done({error: String(error)}));
"""


class Browser:
    """A session of chromedriver."""

    def __init__(self, address: str, profile: str) -> None:
        self._address = address
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        opened = self._post("/session", wanted)
        self.version = opened["capabilities"]["browserVersion"]
        self._session = f"/session/{opened['sessionId']}"

    def open(self, page: Path, width: int, theme: str) -> None:
        """Show a file at a width, light or dark."""
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self._post(f"{self._session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any, wait: bool = False) -> Any:
        """The value that a script returns, or, with `wait`, calls back with."""
        kind = "async" if wait else "sync"
        return self._post(f"{self._session}/execute/{kind}", {"script": script, "args": list(arguments)})

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._post(f"{self._session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def close(self) -> None:
        """End it."""
        request = urllib.request.Request(self._address + self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=30).close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium that ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
            opened = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield opened
            finally:
                opened.close()
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def examine(page: Path, axe: Path, pictures: Path | None = None) -> dict[str, Any]:
    """What is found in each view, and the versions that found it."""
    views = []
    with browser() as window:
        for width, theme in VIEWS:
            window.open(page, width, theme)
            if pictures is not None:
                _picture(window, pictures / f"{width}-{theme}.png", width)
            seen = window.run(LOOK, LEAST_PX)
            window.run(axe.read_text(encoding="utf-8"))
            views.append({"width": width, "theme": theme, **seen, "axe": window.run(AXE, wait=True)})
            if pictures is not None:
                _picture(window, pictures / f"{width}-{theme}-unfolded.png", width)
        if pictures is not None:
            window.open(page, 1280, "light")
            printed = window.command("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
            (pictures / "print.pdf").write_bytes(base64.b64decode(printed["data"]))
        return {"chromium": window.version, "views": views}


def faults(found: dict[str, Any]) -> list[str]:
    """Everything that must not be, a line each."""
    lines = []
    for view in found["views"]:
        where = f"{view['width']} px, {view['theme']}"
        lines += [f"{where}: {size} px: {text!r}" for text, size in view["small"].items()]
        lines += [f"{where}: scrolls sideways: {view['too_wide']}"] if view["scrolls_sideways"] else []
        lines += [f"{where}: axe: {view['axe']['error']}"] if "error" in view["axe"] else []
        for one in view["axe"].get("violations", ()):
            lines.append(f"{where}: {one['impact']}: {one['id']} ({one['nodes']}): {one['first'][0]}")
    return lines


def missing(axe: Path) -> list[str]:
    """What has to be there and is not."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return [*programs, *([] if axe.is_file() else [str(axe)])]


def _picture(window: Browser, path: Path, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height = window.run("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = window.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(shot["data"]))


def main() -> int:
    """Examine one report; write what was found; exit code 1 where that is anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--axe", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    absent = missing(given.axe)
    if absent:
        parser.error(f"not there: {', '.join(absent)}")
    found = examine(given.page, given.axe, given.pictures)
    wrong = faults(found)
    if given.out:
        record = {"date": f"{datetime.now(UTC):%Y-%m-%d}", **found, "faults": wrong}
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(wrong) or f"nothing found in {len(found['views'])} views")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

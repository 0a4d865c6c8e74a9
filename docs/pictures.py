"""The pictures and the text of the README's first page, from a real run: docs/terminal.svg, docs/report.png, README.md.

make demo
python docs/pictures.py demo/run    # the report's picture takes Chromium or Chrome; without one, it is left as it is
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from edgecnn.artifact import load_bundle
from edgecnn.bench import read_runs, summarize
from edgecnn.cli.closing import COLUMNS, Ending, closing, next_commands
from edgecnn.pipeline import with_choice
from edgecnn.profiles import parse_budget

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
COMMAND = "edgecnn run surfaces --model edgecnn_mobilenetv2_035 --minutes 1 --out demo"
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
BROWSER_WORDS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""As rich's own, without the fonts that it would fetch."""


def main() -> None:
    """Draw both pictures of the run in the folder that is named, and put its last screen into the README."""
    (run,) = map(Path, sys.argv[1:])
    log = (run / "run.log").read_text(encoding="utf-8").splitlines()
    began = max(index for index, line in enumerate(log) if " UTC: " in line)
    stages = [line for line in log[began + 1 :] if re.match(r" ?\d+:\d\d(:\d\d)?  \S", line)]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in _screen(run, stages):
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    text = console.export_text(clear=False).rstrip()
    svg = console.export_svg(title=f"$ {COMMAND}", theme=MONOKAI, code_format=SVG, unique_id="edgecnn")
    (DOCS / "terminal.svg").write_text(svg, encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    verdicts = text[text.index("LATENCY") : text.index("\nvariant ")]
    lines = "\n".join(line.rstrip() for line in verdicts.splitlines())
    shown = re.sub(r"(and ends with[^\n]*\n\n```\n).*?(\n```)", lambda m: m[1] + lines + m[2], readme, flags=re.S)
    README.write_text(shown, encoding="utf-8")
    _photograph(run / "report.html")


def _screen(run: Path, stages: list[str]) -> list[object]:
    """The first and last stages, and the last screen."""
    bundle = load_bundle(run / "bundle")
    budget = parse_budget(bundle.budget)
    rows = with_choice([summarize(one, budget) for one in read_runs(run / "bench.jsonl")], bundle)
    minutes, seconds = map(int, stages[-1].split()[0].split(":")[-2:])
    folder = Path("demo")
    files = [("report", str(folder / "report.html")), ("log", str(folder / "run.log"))]
    ending = Ending(next_commands(bundle, folder / "bundle"), files, 60 * minutes + seconds)
    return [*stages[:4], "  ⋮", *stages[-2:], "", *closing(bundle, rows, ending)]


def _photograph(page: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"docs/report.png is left as it is: none of {', '.join(BROWSERS)} is here")
        return
    with tempfile.TemporaryDirectory() as profile:
        words = [browser, *BROWSER_WORDS, f"--user-data-dir={profile}", "--window-size=1100,900"]
        subprocess.run(
            [*words, f"--screenshot={DOCS / 'report.png'}", page.resolve().as_uri()], check=True, timeout=120
        )


if __name__ == "__main__":
    main()

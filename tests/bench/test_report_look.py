"""A report can be read: no small text, enough contrast in light and dark, charts of their own for narrow pages."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from edgecnn.bench import Run
from edgecnn.bench.report import charts
from edgecnn.bench.report.drawing import NARROW, WIDE
from tests.bench.reported import report_of, write_case

REPOSITORY = Path(__file__).parents[2]
LEAST_PX = 11
LEAST_CONTRAST = 4.5
TEXT_COLOURS = ("ink", "soft", "link", "pass", "fail", "unsure")


def _css() -> str:
    return (files("edgecnn.bench.report") / "page.css").read_text(encoding="utf-8")


def _variables(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css))


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _themes() -> dict[str, dict[str, str]]:
    light, _, rest = _css().partition("@media screen and (prefers-color-scheme: dark)")
    screen, _, paper = rest.partition("@media print")
    base = _variables(light)
    return {"light": base, "dark": base | _variables(screen), "print": base | _variables(paper)}


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_stands_out_from_page_and_panels(theme: str) -> None:
    colours = _themes()[theme]
    for name in TEXT_COLOURS:
        for ground in ("paper", "panel"):
            assert _contrast(colours[name], colours[ground]) >= LEAST_CONTRAST, (name, ground)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_in_the_darkest_cell_of_a_heat_map_stand_out(theme: str) -> None:
    colours = _themes()[theme]
    share = 0.6  # of page.html.jinja
    paper = [int(colours["paper"][place : place + 2], 16) for place in (1, 3, 5)]
    mixed = [round(share * shade + (1 - share) * ground) for shade, ground in zip((76, 120, 168), paper, strict=True)]
    assert _contrast(colours["ink"], "#{:02x}{:02x}{:02x}".format(*mixed)) >= LEAST_CONTRAST


def test_numbers_on_bars_stand_out() -> None:
    for colour in charts.STAGE_COLOURS.values():
        assert _contrast(charts._ON_STAGE, colour) >= LEAST_CONTRAST


def test_no_size_of_text_is_too_small() -> None:
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?(?:\d+ )?([\d.]+)px", _css())]
    assert len(sizes) > 10
    assert min(sizes) >= LEAST_PX


def test_charts_are_drawn_for_wide_and_for_narrow_pages(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    _, html = report_of(write_case(tmp_path, make_run))
    for size, least_shown in ((WIDE, 860 - 2 * 24), (NARROW, 320)):
        drawn = re.findall(rf'<div class="at-{size.name}">(<svg.*?</svg>)', html, re.DOTALL)
        assert len(drawn) == 5
        for svg in drawn:
            width = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])  # type: ignore[index]
            assert width == size.width
            texts = [float(px) for px in re.findall(r"<text[^>]*font(?:-size)?: ?([\d.]+)px", svg)]
            assert texts
            assert min(texts) * least_shown / width >= LEAST_PX


def test_a_browser_finds_no_fault(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    """Wants chromium, chromedriver and axe-core, whose file EDGECNN_AXE names."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        import report_accessibility as looks
    finally:
        sys.path.remove(str(REPOSITORY / "benchmarks"))
    axe = Path(os.environ.get("EDGECNN_AXE", REPOSITORY / "node_modules" / "axe-core" / "axe.min.js"))
    absent = looks.missing(axe)
    if absent:
        pytest.skip(f"not there: {', '.join(absent)} (apt-get install chromium chromium-driver; npm install axe-core)")
    report_of(write_case(tmp_path, make_run))
    assert looks.faults(looks.examine(tmp_path / "out" / "report.html", axe)) == []

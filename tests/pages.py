"""The examples in a page of docs/."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[str]:
    """Its blocks of Python, from above."""
    return _FENCED.findall((DOCS / page).read_text(encoding="utf-8"))

"""Draw ``docs/report.png``, the report of README's first probe: ``python docs/draw_report.py``.

Needs Debian's ``chromium``.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
_WIDTH, _HEIGHT = 1000, 850


def main() -> None:
    """Run README's block and take a picture of the report that it leaves."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(block, "README.md", "exec"), {})
        page = Path("digits", "report.html").resolve().as_uri()
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--hide-scrollbars"),
                *(f"--window-size={_WIDTH},{_HEIGHT}", "--virtual-time-budget=10000"),
                *(f"--screenshot={DOCS.resolve() / 'report.png'}", page),
            ],
            check=True,
        )
        os.chdir(DOCS)


if __name__ == "__main__":
    main()

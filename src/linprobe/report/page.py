"""One self-contained page from a run's record: `report.html` opens anywhere, offline.

plotly.js is put into the page whole, from the plotly package. Its full bundle of 4.8 MB is the only
one that a maintained Python package carries; it draws SVG, which prints sharply and which keyboard
and screen reader reach, where bokeh's smaller bundle draws on a canvas. The rest of the page is
plain HTML: its slider, table and search box are the browser's own.

What comes from users is never markup: Python escapes it into HTML and into JSON, the scripts set
it as text, and a content security policy lets no script run but the page's own, by hash, and
nothing be loaded from anywhere.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from linprobe.records.codec import to_json
from linprobe.records.schema import RunRecord
from linprobe.report import doubts, wording
from linprobe.report.interactive import asset
from linprobe.report.measures import chosen
from linprobe.report.payload import payload
from linprobe.report.style import DARK, LIGHT
from linprobe.report.wording import plain
from linprobe.runtime.files import atomic_write

HTML_NAME = "report.html"

_SCRIPTS = ("base.js", "chart.js", "detail.js", "table.js", "page.js")


def write_report(run: RunRecord, folder: Path, metric: str | None = None) -> Path:
    """Write `report.html` into the run's folder, whole or not at all.

    Args:
        run: its record, the only source.
        folder: where to; made if it is missing.
        metric: name of the metric that it shows first; None: the test error.

    Returns:
        The file.

    Raises:
        LinprobeError: The folder can't be written, or the run has no such metric.
    """
    path = Path(folder) / HTML_NAME
    text = report_html(run, metric)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def report_html(run: RunRecord, metric: str | None = None) -> str:
    """Render the page; the same record gives the same page. `metric` is shown first."""
    from plotly.offline import get_plotlyjs

    code = "\n".join(asset(name) for name in _SCRIPTS)
    own = f'(() => {{\n"use strict";\n{code}}})();\n'
    library = get_plotlyjs()
    content = payload(run, metric)
    key = content.pop("key")
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(asset("report.html")).substitute(
        policy=_policy(library, own),
        title=escape(wording.title(run)),
        style=_palettes() + asset("report.css"),
        heading=escape(wording.title(run)),
        subtitle=escape(f"{wording.samples_note(run)}, seed {run.seed}, {run.protocol} protocol"),
        banners="".join(f'<p class="banner">{escape(text)}</p>' for text in _banners(run)),
        summary=escape(_summary(run, metric)),
        notes="".join(
            f'<li class="note">{escape(text)}</li>'
            for text in (*run.config.notes, *doubts.doubts(run))
        ),
        key="".join(
            f'<li data-toggle="{item["toggle"]}">{item["swatch"]}{escape(item["label"])}</li>'
            for item in key
        ),
        reading="".join(f"<li>{escape(text)}</li>" for text in wording.how_to_read(run)),
        provenance="".join(_provenance(run)),
        # "<" could end the script element, or open a comment in it; JSON has an escape for it.
        data=data.replace("<", "\\u003c"),
        library=library,
        script=own,
    )


def _summary(run: RunRecord, metric: str | None) -> str:
    measure, text = chosen(run, metric), wording.summary(run)
    if measure.metric is None or (best := measure.best(run)) is None:
        return text
    which = "Highest" if measure.metric.higher_is_better else "Lowest"
    return f"{text} {which} {measure.label}: {plain(measure.value(best))} at {best.layer}."


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    # plotly.js writes style attributes, and the picture that it saves is a data or blob URL.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _palettes() -> str:
    """Write both palettes of `style` as CSS variables; paper is light."""
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not(.printing){{{dark}}}}}\n"
    )


def _banners(run: RunRecord) -> Iterator[str]:
    """Say what a reader must know before anything else."""
    if run.quick:
        yield "QUICK RUN on few samples and training steps: a smoke test, not a result."
    if not run.complete:
        yield "UNFINISHED RUN: checkpoints are missing."
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    if run.protocol == "sgd":
        yield "PROTOCOL SGD: these probes were trained by SGD, for comparison, not to optima."
    unsolved = sum(probe.standing == "failed" for probe in probes)
    if unsolved and run.protocol == "sgd":
        yield f"{unsolved} of {len(probes)} probes have no value; the table says why."
    elif unsolved:
        yield (
            f"{unsolved} of {len(probes)} probes are not certified to the tolerance that was "
            "asked for. They are drawn as hollow points; the table says why."
        )


def _provenance(run: RunRecord) -> Iterator[str]:
    """Say where the numbers come from, in rows of a description list."""
    rows: dict[str, Any] = {
        "experiment": run.experiment,
        "seed": run.seed,
        "data": run.dataset,
        "settings": run.config,
        "software and machine": run.environment,
        "wall time": f"{run.seconds:,.0f} s",
        "seconds of each stage": {name: round(value, 1) for name, value in run.stages.items()},
        "peak memory": f"{run.peak_rss_bytes / 2**30:.1f} GiB",
        "source of this page": "results.json in the same folder",
    }
    for name, value in rows.items():
        yield f"<dt>{escape(name)}</dt><dd>{_tree(to_json(value))}</dd>"


def _tree(value: Any) -> str:
    """Write JSON types as nested lists."""
    if isinstance(value, dict) and value:
        items = (
            f"<li><b>{escape(key)}</b> {_tree(item)}</li>"
            for key, item in value.items()
            if item is not None
        )
        return f"<ul>{''.join(items)}</ul>"
    if isinstance(value, list) and value:
        return escape(", ".join(_plain(item) for item in value))
    return escape("none" if value in (None, {}, []) else _plain(value))


def _plain(value: Any) -> str:
    """Write a number without digits that nobody reads, and all else as Python does."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""A run as HTML for notebooks: its curve as a picture, and a row for each probe."""

import base64
import io
from collections.abc import Iterator
from html import escape

from linprobe.records.schema import RunRecord
from linprobe.report import wording
from linprobe.report.measures import table_columns
from linprobe.report.plots import draw_run
from linprobe.report.wording import plain, scientific, span, whole
from linprobe.runtime.text import counted

_MAX_OPEN = 30  # rows of a table that is shown at once
_DPI = 90


def run_html(run: RunRecord) -> str:
    """Render a run; text from the record is escaped, and nothing is loaded or executed.

    Args:
        run: the record; without probes it has no picture.
    """
    heading = f"<p><b>{escape(wording.title(run))}</b><br>{escape(wording.summary(run))}</p>"
    rows = list(_rows(run))
    if not rows:
        return f"<div>{heading}</div>"
    count = counted(len(rows), "probe")
    head = _cells("th", (*_HEAD, *(name for name, _ in table_columns(run, None))))
    table = (
        f"<details{' open' * (len(rows) <= _MAX_OPEN)}><summary>{count}</summary><table><thead>"
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></details>"
    )
    return f"<div>{heading}{_picture(run)}{table}</div>"


_HEAD = ("layer", "test error", "95 % interval", "l2", "gap, nats", "width", "certificate")


def _rows(run: RunRecord) -> Iterator[str]:
    several, columns = len(run.checkpoints) > 1, table_columns(run, None)
    for checkpoint in run.checkpoints:
        for probe in checkpoint.probes:
            cells = (
                f"{probe.layer} ({checkpoint.name})" if several else probe.layer,
                plain(probe.test_error_rate),
                span(probe.test_error_ci95),
                scientific(probe.l2, 0),
                scientific(probe.duality_gap),
                whole(probe.num_features),
                wording.short_certificate(probe),
                *(cell(probe) for _, cell in columns),
            )
            yield f"<tr>{_cells('td', cells)}</tr>"


def _cells(tag: str, texts: tuple[str, ...]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _picture(run: RunRecord) -> str:
    """Draw the run's figure into an image that the page holds itself."""
    buffer = io.BytesIO()
    draw_run(run).savefig(buffer, format="png", dpi=_DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    words = escape(f"Test error along the depth. {wording.title(run)}")
    return f'<img src="data:image/png;base64,{data}" alt="{words}">'

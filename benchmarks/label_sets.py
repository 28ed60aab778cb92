"""``python -m benchmarks.label_sets``: several label sets on the rows of one layer.

Concepts of a language model are probed on the same activations. `linprobe.fit_label_sets` is given
1, 5 and 20 sets of two classes (`benchmarks.drawn.concepts`); beside it stands scikit-learn's sweep
(`benchmarks.few_rows.swept`) of as many sets. One thread, processor seconds, with all that a call
does: reading, checks, evaluation and records.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from benchmarks.drawn import concepts
from benchmarks.few_rows import one_thread, print_table, swept, timed
from linprobe import ProbeConfig, ProbeReport, fit_label_sets

Labelled = tuple[Tensor, dict[str, Tensor]]

SETS = (1, 5, 20)
HEADER = (
    *("label sets", "exact", "times one", "not exact", "times one", "scikit-learn"),
    *("exact to the last sample", "largest gap"),
)


def measure(
    rows: int = 1024, features: int = 4096, sets: Sequence[int] = SETS
) -> Iterator[dict[str, Any]]:
    """Fit so many label sets at a time, and give what each number of them took."""
    train, test = (
        concepts(n, features, max(sets), seed) for n, seed in ((rows, 1), (rows // 2, 2))
    )
    with one_thread():
        for count in sets:
            yield _measured(*((x, dict(list(y.items())[:count])) for x, y in (train, test)))


def _measured(train: Labelled, test: Labelled) -> dict[str, Any]:
    (x, y), (xt, yt) = train, test

    def ours(*, exact: bool) -> dict[str, ProbeReport]:
        method = ProbeConfig(scale="feature", exact=exact)
        return fit_label_sets({"layer": x}, y, ({"layer": xt}, yt), method=method)

    found, seconds = timed(lambda: ours(exact=True))
    _, loose = timed(lambda: ours(exact=False))
    _, sweep = timed(lambda: [swept((x, y[name]), (xt, yt[name])) for name in y])
    records = [report["layer"].record for report in found.values()]
    undecided = [r.evaluation.num_undecided for r in records if r.evaluation is not None]
    return {
        "sets": len(y),
        "exact_seconds": seconds,
        "seconds": loose,
        "sweep_seconds": sweep,
        "exact": undecided.count(0),
        "largest_gap": max(record.duality_gap for record in records),
    }


def table_rows(found: Iterable[dict[str, Any]]) -> Iterator[list[str]]:
    """Write what `measure` gives under `HEADER`; ratios are to the first row, of one set."""
    one: dict[str, Any] | None = None
    for some in found:
        one = one or some
        times = [f"{some[name] / one[name]:.1f}" for name in ("exact_seconds", "seconds")]
        yield [
            str(some["sets"]),
            *(f"{some['exact_seconds']:.2f} s", times[0], f"{some['seconds']:.2f} s", times[1]),
            f"{some['sweep_seconds']:.2f} s",
            f"{some['exact']} of {some['sets']}",
            f"{some['largest_gap']:.0e}",
        ]


def main(words: Sequence[str] | None = None) -> None:
    """Print a row for each number of label sets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--sets", default=",".join(map(str, SETS)))
    options = parser.parse_args(words)
    sets = [int(count) for count in options.sets.split(",")]
    print_table(HEADER, table_rows(measure(options.rows, options.features, sets)))


if __name__ == "__main__":
    main()

"""What is measured: which solver, on which features, for which penalties."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.drawn import FEW, VIT

TOL = 1e-4
"""Certified duality gap (nats) at which everybody is done."""

COLD_L2 = 1e-5
"""Penalty of the single solves: scikit-learn's C = 1 is 1.7e-5 for 60,000 rows."""

PATH = tuple(10.0**-exponent for exponent in range(1, 9))

SKLEARN = ("sklearn lbfgs", "sklearn newton-cg", "sklearn newton-cholesky")
TORCH = ("torch L-BFGS", "torch Adam")
OURS = "linprobe"
WIDTHS = {
    "logits": 10,
    "layer8": 128,
    "fc1_postact": 512,
    "input": 784,
    "conv2_postpool": 3136,
    "conv1_postpool": 6272,
    "conv1_postact": 25088,
}
"""Layers that are measured, and their numbers of features."""

TOGETHER = "layer4+layer8+layer16+layer32"
"""Layers of equal width, for solvers that take several at a time."""

MOST_FLOATS = 60_000 * 6272
"""Of a feature matrix; wider layers get fewer rows."""


@dataclass(frozen=True)
class Job:
    """One solver on one problem.

    Attributes:
        suite: the part of the page that shows it.
        competitor: key of `benchmarks.competitors.COMPETITORS`.
        layer: whose features; several of equal width, joined by "+", are solved together.
        num_rows: the first so many training samples.
        num_features: columns kept, spread evenly.
        num_classes: K; see `benchmarks.features.class_labels`.
        l2s: penalties in falling order; one: from cold, several: a warm-started path.
        device: "cpu" or "cuda".
    """

    suite: str
    competitor: str
    layer: str
    num_rows: int
    num_features: int
    num_classes: int = 10
    l2s: tuple[float, ...] = (COLD_L2,)
    device: str = "cpu"

    @property
    def key(self) -> str:
        """What tells this job from all others."""
        sizes = f"{self.layer} n{self.num_rows} d{self.num_features} k{self.num_classes}"
        path = f"{self.l2s[0]:.0e}..{self.l2s[-1]:.0e} x{len(self.l2s)}"
        return f"{self.suite} | {sizes} | {path} | {self.competitor} | {self.device}"


def all_jobs(num_rows: int, devices: tuple[str, ...] = ("cpu",)) -> list[Job]:
    """Every job, those that tell most first; the solvers of one problem next to each other."""
    jobs = [*_cold(num_rows, ("conv2_postpool", "layer8", "input", "fc1_postact"))]
    jobs += _path(num_rows, ("layer8", "conv2_postpool", "input"))
    jobs += [*_binary(num_rows), *_growth(num_rows)]
    jobs += [*_cold(num_rows, ("logits", "conv1_postpool", "conv1_postact"))]
    jobs += _path(num_rows, ("fc1_postact", "conv1_postpool"))
    jobs += [*_few(1024, 4096), *_classes(100_000, 512, 1000, (OURS, *SKLEARN[:2]))]
    if "cuda" in devices:
        on_gpu = (OURS, *TORCH)
        jobs += [
            Job(job.suite, job.competitor, job.layer, *_sizes(job), l2s=job.l2s, device="cuda")
            for job in jobs
            if job.suite in ("cold", "path") and job.competitor in on_gpu
        ]
    return jobs


def quick_jobs() -> list[Job]:
    """A few jobs of seconds: a check that everything works, not a result."""
    cold = ("layer8", "input")
    jobs = [Job("cold", c, x, 2000, WIDTHS[x]) for x in cold for c in (OURS, *SKLEARN[:1], *TORCH)]
    jobs += [Job("path", c, "layer8", 2000, 128, l2s=PATH[:4]) for c in (OURS, SKLEARN[0])]
    jobs += [Job("binary", c, "layer8", 2000, 128, 2) for c in (OURS, "probekit")]
    jobs += [Job("batched", c, TOGETHER, 1000, 128, 2) for c in (OURS, "probekit")]
    jobs += list(_classes(2000, 64, 100, (OURS, SKLEARN[0])))[:2]
    jobs += list(_few(60, 2000))[:2]
    return jobs + [Job("growth n", OURS, "input", n, 784) for n in (500, 1000, 2000)]


def rows_for(layer: str, num_rows: int) -> int:
    """Rows of a layer that memory and time allow."""
    return min(num_rows, MOST_FLOATS // WIDTHS[layer] // 1000 * 1000)


def _sizes(job: Job) -> tuple[int, int, int]:
    return job.num_rows, job.num_features, job.num_classes


def _cold(num_rows: int, layers: tuple[str, ...]) -> Iterator[Job]:
    for layer in layers:
        for competitor in (OURS, *SKLEARN, *TORCH):
            yield Job("cold", competitor, layer, rows_for(layer, num_rows), WIDTHS[layer])


def _path(num_rows: int, layers: tuple[str, ...]) -> Iterator[Job]:
    for layer in layers:
        for competitor in (OURS, *SKLEARN[:2]):
            yield Job("path", competitor, layer, num_rows, WIDTHS[layer], l2s=PATH)


def _binary(num_rows: int) -> Iterator[Job]:
    for layer in ("layer8", "input", "conv2_postpool"):
        for competitor in (OURS, "probekit", *SKLEARN):
            yield Job("binary", competitor, layer, num_rows, WIDTHS[layer], 2)
    for competitor in (OURS, "probekit"):
        yield Job("batched", competitor, TOGETHER, num_rows, 128, 2)


def _classes(n: int, d: int, k: int, competitors: tuple[str, ...]) -> Iterator[Job]:
    """Many classes; the smaller penalty is about what held-out rows choose."""
    for layer in VIT:
        for l2 in (1e-3, 1e-5):
            for competitor in competitors:
                yield Job("classes", competitor, layer, n, d, k, (l2,))


def _few(n: int, d: int) -> Iterator[Job]:
    """Two classes on few rows of many features, as in probes of language models."""
    for competitor in (OURS, "probekit", *SKLEARN):
        yield Job("few", competitor, FEW, n, d, 2, PATH)


def _growth(num_rows: int) -> Iterator[Job]:
    both = (OURS, SKLEARN[0])
    for competitor in both:
        for parts in (16, 8, 4, 2, 1):
            yield Job("growth n", competitor, "input", num_rows // parts, 784)
        for columns in (98, 196, 392, 784, 1568, 3136):
            yield Job("growth D", competitor, "conv2_postpool", num_rows // 3, columns)
        for classes in (2, 5, 10, 20, 50, 100, 200):
            yield Job("growth K", competitor, "input", num_rows // 3, 784, classes)
        for length in (1, 2, 4, 8, 16):
            path = tuple(10.0 ** -(1 + 5 * (i + 1) / length) for i in range(length))
            yield Job("growth path", competitor, "layer8", num_rows, 128, l2s=path)

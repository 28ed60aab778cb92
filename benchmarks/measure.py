"""Jobs in processes of their own under a time cap, and their results in one JSON file."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job
from linprobe.runtime.files import atomic_write

SCHEMA = 1
NAME = "benchmarks.json"

_GRACE = 30.0  # seconds for loading, certificates and warm-up, over twice the cap


def run_capped(job: Job, folder: Path, cap: float, threads: int) -> dict[str, Any]:
    """Run a job in a process that is stopped when it takes far longer than its cap.

    Args:
        job: what to run.
        folder: of `FeatureFiles`, prepared.
        cap: seconds on the solver's clock.
        threads: CPU threads.

    Returns:
        As `benchmarks.worker.run_job`, with the job and the cap; a process that died or was
        stopped leaves status "failed" or "time cap" and the points that it had reached.
    """
    with tempfile.TemporaryDirectory() as place:
        job_file, result_file = Path(place, "job.json"), Path(place, "result.json")
        asked = {"job": asdict(job), "folder": str(folder), "cap": cap, "threads": threads}
        text = json.dumps(asked)
        job_file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.worker", str(job_file), str(result_file)]
        many = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
        as_read = json.loads(text)["job"]  # penalties are a list there, no tuple
        record: dict[str, Any] = {"job": as_read, "cap": cap, "points": [], "seconds": None}
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **many},
                timeout=cap * 2 + _GRACE if job.competitor != "linprobe" else cap + _GRACE,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                record |= {"status": "failed", "reason": f"exit {done.returncode}: {last}"}
        except subprocess.TimeoutExpired:
            record |= {"status": "time cap", "reason": "stopped within an attempt"}
        if result_file.exists():
            ended = "status" in record
            kept = json.loads(result_file.read_text(encoding="utf-8"))
            record = kept | {k: record[k] for k in ("status", "reason") if ended}
        return record


def read(path: Path) -> dict[str, Any]:
    """What was measured so far: schema, machine, results by key."""
    if not path.exists():
        return {"schema": SCHEMA, "machine": {}, "results": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise SystemExit(f"{path} has schema {found.get('schema')}; expected {SCHEMA}: remove it")
    return found


def write(path: Path, measured: dict[str, Any]) -> None:
    """Replace the file in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(measured, indent=1, sort_keys=True), encoding="utf-8")

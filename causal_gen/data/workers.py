"""Morphology over several processes, each a fresh interpreter that reads arrays from its stdin.

Forking a process that runs JAX's threads can hang, and a spawned `multiprocessing` worker imports the caller's main script again, which
runs it twice where a user wrote no main guard. A plain `python -c` has neither fault.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from causal_gen.data import morphology
from causal_gen.data.storage import progress
from causal_gen.types import Float, UInt8

JOB = 500  # digits a job: a second or two, against .2 s to start the interpreter
PROGRAM = "from causal_gen.data.morphology import serve; serve()"


def set_thickness(
    digits: UInt8[np.ndarray, "b h w"], thickness: Float[np.ndarray, "b"], text: str = "morphology"
) -> Float[np.ndarray, "b h w"]:
    """`morphology.set_thickness`, in as many processes as there are cores where it is worth their start."""
    if len(digits) <= JOB:
        return morphology.set_thickness(digits, thickness)
    starts = range(0, len(digits), JOB)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) as pool:
        jobs = [pool.submit(_job, digits[start : start + JOB], thickness[start : start + JOB]) for start in starts]
        try:
            return np.concatenate([job.result() for job in progress(jobs, len(jobs), f"{text}, {JOB} digits a job")])
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C or an error the queued jobs would otherwise still run


def _job(digits: np.ndarray, thickness: np.ndarray) -> np.ndarray:
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # one thread a process: the matrices are small and the processes already fill the cores
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    sent = io.BytesIO()
    np.savez(sent, digits=digits, thickness=thickness)
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=sent.getvalue(), capture_output=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"a morphology process ended with code {done.returncode}: {done.stderr.decode()[-500:]}")
    return np.load(io.BytesIO(done.stdout))

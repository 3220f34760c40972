"""A trainer for tests of the launchers: what `experiments.train` leaves in a workdir and does at signals, without a model.

Its loss at a step is known: (log10(learning_rate) + 2)^2 + 4 / step. A learning rate above .05 is a mistake of the user (exit code 2), and
with CRASH in the environment trial CRASH dies on its first step after each checkpoint, every time; with CRASH_ON=last, once it saved one.
Every step that it does is a line of steps.txt.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

workdir = Path(sys.argv[-1].removeprefix("--workdir="))
pause = float(os.environ.get("PAUSE", "0.01"))
lock = open(workdir / ".lock", "a+")  # noqa: SIM115
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(f"error: {workdir} is being trained by another")
config = json.loads((workdir / "config.json").read_text())
rate, steps, every = config["train"]["learning_rate"], config["train"]["steps"], config["checkpoint"]["every"]
if rate > 0.05:
    print(f"error: train.learning_rate: {rate} is too high", file=sys.stderr)
    sys.exit(2)
asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
done = max((int(path.name) for path in (workdir / "checkpoints").glob("*")), default=0)
metrics = workdir / "metrics.jsonl"
rows = [line for line in metrics.read_text().splitlines() if json.loads(line)["step"] <= done] if metrics.exists() else []
metrics.write_text("".join(line + "\n" for line in rows))


def save() -> None:
    (workdir / "checkpoints" / str(done)).mkdir(parents=True, exist_ok=True)


while done < steps:
    time.sleep(pause)
    done += 1
    with open(workdir / "steps.txt", "a") as log:
        log.write(f"{os.getpid()} {done}\n")
    with open(metrics, "a") as log:
        log.write(json.dumps({"step": done, "loss": 1.0, "eval_loss": (math.log10(rate) + 2) ** 2 + 4 / done}) + "\n")
    crash = os.environ.get("CRASH") == workdir.name
    if crash and "CRASH_ON" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if asked or (workdir / "STOP").exists():
        save()
        print(f"train: stopped at step {done} of {steps} and saved")
        sys.exit(0)
    if done % every == 0 or done == steps:
        save()
        if crash and done < steps:
            os.kill(os.getpid(), signal.SIGKILL)
print(f"train: finished at step {done}")

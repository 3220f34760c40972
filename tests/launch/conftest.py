"""A config with a space, and the sweep over it with a trainer that trains nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Path(__file__).parent / "trainer.py"
CONFIG = """
from configs.causal_transformer import text
from configs.spaces import categorical, integer, log_uniform, uniform

def get_config():
    config = text.get_config("tiny")
    config.train.steps = {steps}
    config.checkpoint.every = {every}
    return config

def sweep():
    return {space}
"""
SPACE = '{"train.learning_rate": log_uniform(1e-4, 0.05, points=3), "train.weight_decay": categorical(0.0, 0.1)}'


class Bench:
    """A folder with a config, and commands of launch/ over it."""

    def __init__(self, folder: Path):
        self.folder, self.study = folder, folder / "study"
        self.write()

    def write(self, space: str = SPACE, steps: int = 20, every: int = 5) -> None:
        (self.folder / "space.py").write_text(CONFIG.format(space=space, steps=steps, every=every))

    def command(self, *flags: str, trainer: bool = True, study: Path | None = None) -> list[str]:
        words = [sys.executable, "-m", "launch.sweep", f"--config={self.folder / 'space.py'}", f"--study={study or self.study}", *flags]
        return [*words, "--", sys.executable, str(TRAINER)] if trainer else words

    def start(self, *flags: str, study: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        """A sweep that goes on beside the test."""
        words = self.command(*flags, study=study)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, cwd=ROOT, env={**os.environ, **environ}, **pipes)

    def run(self, *flags: str, study: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """A sweep to its end."""
        words = self.command(*flags, study=study)
        return subprocess.run(words, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=600)

    def told(self, study: Path | None = None) -> dict[str, Any]:
        """study.json."""
        return json.loads(((study or self.study) / "study.json").read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)

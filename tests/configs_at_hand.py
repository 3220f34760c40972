"""The configs of this checkout, and which of them a quick run of the tests puts to work."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

from causal_gen.build import Experiment, build, load_config
from causal_gen.types import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("configs/*/*.py")) if path.name != "__init__.py"]
FIRST = (  # one a family
    "configs/diffusion_ae/pendulum.py",
    "configs/causal_transformer/text.py",
    "configs/hybrid_transformer/gpt_bert.py",
    "configs/structural/triangle.py",
    "configs/bidirectional/dear.py",
    "configs/linear_latent/hca.py",
    "configs/hybrid_transformer/voicecraft.py",
)


def changed() -> set[str]:
    """Configs touched by the last commit or since; none where there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "diff", "--name-only", "HEAD^", "--", "configs"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return set()
    return set(done.stdout.split())


def worked(family: str) -> list:
    """Every config of a family as a parameter; all but the first and those that changed are marked slow."""
    quick = {*FIRST, *changed()}
    own = [path for path in CONFIGS if Path(path).parent.name == family]
    return [pytest.param(path, id=Path(path).stem, marks=() if path in quick else pytest.mark.slow) for path in own]


def modes(path: str) -> list[str]:
    """The modes that a config knows, "" for the full one first: it names them where it refuses another."""
    try:
        load_config(f"{path}:?")
    except ConfigError as error:
        return ["", *str(error).partition("the modes are ")[2].partition(", or none")[0].split(", ")]
    raise AssertionError(f"{path} takes any mode; let it call check_mode")


@functools.cache
def tiny(path: str) -> Experiment:
    """The experiment of a config's tiny mode."""
    return build(load_config(f"{path}:tiny"))

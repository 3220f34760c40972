"""What `sweep()` of a config is written in: the values that launch.sweep may try for one key.

    from configs.spaces import categorical, integer, log_uniform, uniform

    def sweep() -> dict:
        return {
            "train.learning_rate": log_uniform(1e-4, 1e-2, points=5),
            "model.transformer.layers": integer(1, 4),
            "train.optimizer": categorical("adamw", "muon"),
        }

A function of that name beside `get_config` names config keys by their dotted paths. It may give a list of dicts {key: value} instead, each
one trial. Ranges hold both ends. `points` is how many values of a range a grid tries; the other samplers do not read it.
`python -m experiments.space --config=FILE.py` checks and prints what a config gives.
"""

from typing import Any


def uniform(low: float, high: float, points: int | None = None) -> dict[str, Any]:
    """A real number, all alike."""
    return {"kind": "uniform", "low": low, "high": high, "points": points}


def log_uniform(low: float, high: float, points: int | None = None) -> dict[str, Any]:
    """A positive real number, every order of magnitude alike."""
    return {"kind": "log_uniform", "low": low, "high": high, "points": points}


def integer(low: int, high: int, step: int = 1) -> dict[str, Any]:
    """low, low + step, ... up to high."""
    return {"kind": "integer", "low": low, "high": high, "step": step}


def categorical(*choices: Any) -> dict[str, Any]:
    """One of some values: numbers, words, yes or no, None, or lists of them."""
    return {"kind": "categorical", "choices": list(choices)}

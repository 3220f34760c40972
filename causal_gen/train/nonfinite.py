"""Numbers that are not finite: who is to blame, and what becomes of the step.

    stop      the run ends with a line that names the first bad tensor and the examples of the batch.
    skip      the step leaves parameters, average and optimiser as they were (a select inside the compiled step); the next batch follows.
    rollback  the run goes on from its last checkpoint (from step 0 where there is none) with the batch after the bad one: the batches
              since that checkpoint are passed over too, since an update that was finite itself may have led where the next one was not.

`skip` and `rollback` do so at most `train.nonfinite_limit` times in a row: batches without a good one between them, or returns to the same
checkpoint. What was passed over is recorded in every checkpoint as `passed`, [[first, last + 1], ...] of batches from 0. A batch is a
function of (seed, step) and so is the fault, so that a run that is killed and resumed passes over the same batches as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_gen.parallel.rules import leaf_path
from causal_gen.train.state import NonFiniteError, TrainConfig
from causal_gen.train.step import BLAME
from causal_gen.types import PyTree

SHOWN = 32  # examples of a batch that a line names


class Numbers:
    """Reads the metrics of finished steps. `leaves` are the paths of the parameters that have a gradient, in tree order; `examples`
    gives those of a batch; `passed` is what earlier starts of the run passed over; `say` prints a line."""

    def __init__(
        self,
        train: TrainConfig,
        leaves: Sequence[str],
        examples: Callable[[int], np.ndarray],
        say: Callable[[str], Any],
        passed: Sequence[Sequence[int]] = (),
    ):
        self._train, self._leaves, self._examples, self._say = train, leaves, examples, say
        self.passed = [list(part) for part in passed]
        self._from, self._returns = -1, 0

    def read(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float] | None:
        """The numbers of `step`, waiting for them; {} where it was skipped, None where it is to be rolled back.

        Raises NonFiniteError where that ends the run.
        """
        # one by one and by numpy: jax.device_get first starts a copy of each, which takes the host seven times as long
        numbers = {name: float(np.asarray(value)) for name, value in metrics.items()}
        blame = int(numbers.pop(BLAME))
        bad = first_bad(numbers, self._leaves[blame] if blame >= 0 else None)
        if bad is None:
            return numbers
        text = f"{bad} at step {step}, batch of the examples {_listed(self._examples(step - 1))} of train"
        if self._train.nonfinite == "stop":
            raise NonFiniteError(
                f"{text}: training stopped and nothing of it was saved; lower train.learning_rate or train.clip_norm and run again "
                "to go on from the last checkpoint, or set train.nonfinite to skip or rollback"
            )
        if self._train.nonfinite == "rollback":
            self._say(f"{text}: rolling back")
            return None
        self._pass_over(step - 1, step)
        first, last = self.passed[-1]
        self._limit(last - first, f"{text}: the last of {last - first} skipped steps in a row")
        self._say(f"{text}: skipped, {last - first} in a row")
        return {}

    def rolled_back(self, start: int, step: int) -> None:
        """Notes that `step` was not finite and that the run goes on from the checkpoint of `start` with the batch after it."""
        self._pass_over(start, step)
        self._from, self._returns = start, self._returns + 1 if start == self._from else 1
        self._limit(self._returns, f"step {step} is not finite either, after {self._returns - 1} returns to checkpoint {start}")
        self._say(f"back to checkpoint {start}; batches {start} to {step - 1} are passed over")

    def check_state(self, step: int, path: str | None) -> bool:
        """Whether a state may be saved whose first leaf that is not finite is `path`; as `read`, raises or is False where it may not."""
        if path is None:
            return True
        if self._train.nonfinite == "rollback":
            self._say(f"{path} is not finite after step {step}: rolling back")
            return False
        raise NonFiniteError(
            f"{path} is not finite after step {step}, though its loss and gradient were: training stopped and nothing of it was saved; "
            "lower train.learning_rate and run again to go on from the last checkpoint"
        )

    def _limit(self, times: int, text: str) -> None:
        if times > self._train.nonfinite_limit:
            raise NonFiniteError(
                f"{text}, more than train.nonfinite_limit={self._train.nonfinite_limit}: training stopped; lower train.learning_rate "
                "or look at those examples, and run again to go on from the last checkpoint"
            )

    def _pass_over(self, first: int, last: int) -> None:
        while self.passed and self.passed[-1][1] >= first:  # also what an earlier return to the same checkpoint passed over
            first = min(first, self.passed.pop()[0])
        self.passed.append([first, last])


def first_bad(numbers: Mapping[str, float], leaf: str | None) -> str | None:
    """What is not finite first: a term, else the loss that they sum to, else the gradient of `leaf`; None where all is well."""
    last = ("loss", "grad_norm")
    for name in [*(n for n in numbers if n not in last), *(n for n in last if n in numbers)]:
        if not math.isfinite(numbers[name]):
            return f"the gradient of {leaf} is not finite" if name == "grad_norm" and leaf else f"{name} is {numbers[name]}"
    return None


_all_finite = jax.jit(lambda leaves: [jnp.isfinite(leaf).all() for leaf in leaves])


def bad_leaf(tree: PyTree) -> str | None:
    """The path of the first leaf that is not finite. Waits for all of them: for a state that is about to be saved."""
    named = [(leaf_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    named = [(name, leaf) for name, leaf in named if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    good = jax.device_get(_all_finite([leaf for _, leaf in named]))
    return next((name for (name, _), fine in zip(named, good, strict=True) if not fine), None)


def _listed(indices: np.ndarray) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:SHOWN])
    return shown + (f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else "")

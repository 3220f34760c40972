"""Fields of what reads a sequence (models/encoding.py), shared by the families that tell something about their inputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from causal_gen.nn.adapters import AdapterConfig
from causal_gen.nn.precision import Policy
from causal_gen.nn.resampler_config import ResamplerConfig
from causal_gen.nn.transformer_config import TransformerConfig
from causal_gen.structure import expression
from causal_gen.structure.visibility import Visibility
from causal_gen.types import Array, ConfigError, Entry, Float, at_least, choice


@dataclasses.dataclass(frozen=True)
class MaskSchedule:
    """The field "alpha" of `soft(a, b)`: `start` up to step `begin` of training, `end` from step `finish` on, a line between.

    Outside of training it is `end`. Sources: Li et al., Conan-embedding-v2 (2025); Wang et al., iLLaMA (2024).
    """

    start: float = at_least(0.0, 0.0, 1.0)
    end: float = at_least(1.0, 0.0, 1.0)
    begin: int = at_least(0, 0)
    finish: int = at_least(0, 0)

    def __post_init__(self):
        if self.finish < self.begin:
            raise ConfigError(f"finish={self.finish} comes before begin={self.begin}; raise finish")

    def __call__(self, step: Any) -> Float[Array, ""]:
        """Alpha at a step of training."""
        done = jnp.clip((jnp.asarray(step, jnp.float32) - self.begin) / max(self.finish - self.begin, 1), 0.0, 1.0)
        done = jnp.where(jnp.asarray(step) >= self.finish, 1.0, done)
        return (1 - done) * self.start + done * self.end


@dataclasses.dataclass(frozen=True)
class EncodingConfig:
    """What the families share; their own fields come after.

    inputs: the entry that is read: tokens [t], or vectors [t, f] (patches of an image, frames of a film).  columns: inputs stand in rows
    of so many, which gives them the fields "row" and "column".  visibility: who sees whom (structure/masks.py).  slot: a learned vector
    before or after the inputs, which reads them under the same visibility.  mask_schedule: of the field "alpha", where the visibility is
    `soft`.
    resampler: with queries, these read the inputs and go through the stack in their place.
    adapters: with a rank, only low-rank updates and what comes after the stack are trained (nn/adapters.py).
    pool: where one state an example is read: at the learned slot, at the last input, or the mean over all slots.
    """

    inputs: str = "tokens"
    columns: int = at_least(0, 0)
    visibility: str = "full()"
    slot: str = choice("none", "first", "last")
    transformer: TransformerConfig = TransformerConfig()
    mask_schedule: MaskSchedule = MaskSchedule()
    adapters: AdapterConfig = AdapterConfig()
    resampler: ResamplerConfig = ResamplerConfig()
    pool: str = choice("last", "mean", "slot")

    def __post_init__(self):
        if self.pool == "slot" and self.slot == "none":
            raise ConfigError('pool="slot" reads a slot that is not there; set slot to "first" or "last"')
        if self.mask_schedule != MaskSchedule() and "alpha" not in self.seen.fields:
            raise ConfigError(
                f"mask_schedule sets the field 'alpha', which {self.visibility!r} does not read; write soft(causal(), full())"
            )
        if self.columns and self.transformer.position != "rope2d" and not {"row", "column"} & self.seen.fields:
            raise ConfigError(f'columns={self.columns} gives rows and columns, which nothing reads; set position "rope2d", or columns to 0')
        if self.resampler.queries and (self.columns or self.fields):
            raise ConfigError(
                "resampler: its queries have no rows, columns or fields of the batch; leave columns at 0 and visibility without them"
            )

    @functools.cached_property
    def seen(self) -> Visibility:
        """Who sees whom."""
        return expression.read(self.visibility)

    @property
    def fields(self) -> tuple[str, ...]:
        """Entries [b, t] of the batch that say what each input is, beside its index."""
        known = {"index", "alpha", *(("row", "column") if self.columns else ())}
        return tuple(sorted({*self.seen.fields, *self.transformer.places} - known))

    def encoding_problems(self, entries: Mapping[str, Entry]) -> list[str]:
        """What these fields and a data source disagree on, a line each."""
        entry = entries.get(self.inputs)
        if entry is None:
            return [f"model.inputs: entry {self.inputs!r} is not in the data; its entries are {', '.join(entries)}"]
        wanted = 2 if entry.vocabulary is None else 1
        if len(entry.shape) != wanted:
            what = "tokens [t], or vectors [t, f]"
            return [f"model.inputs: entry {self.inputs!r} has shape {entry.shape} and vocabulary {entry.vocabulary}; it must be {what}"]
        problems = [f"model.visibility: field {name!r} is not in the data" for name in self.fields if name not in entries]
        resampled, inputs, c = self.resampler, entry.shape[0], self.transformer
        if resampled.queries and (problem := resampled.problem(inputs)):
            return [*problems, f"model.resampler: {problem}"]
        slots = (resampled.windows(inputs) * resampled.queries or inputs) + (self.slot != "none")
        if c.position == "learned" and c.length < slots:
            problems.append(f"model.transformer.length: {c.length} positions for {slots} slots; raise it")
        if self.columns and entry.shape[0] % self.columns:
            problems.append(f"model.columns: {entry.shape[0]} inputs do not stand in rows of {self.columns}; choose a divisor")
        return problems

    def encoding(self, entries: Mapping[str, Entry], precision: str, remat: str) -> Any:
        """The encoding of a data source's inputs."""
        from causal_gen.models.encoding import Encoding  # networks are imported when one is built

        entry = entries[self.inputs]
        transformer = dataclasses.replace(self.transformer, remat=remat)
        tokens, size = entry.vocabulary is not None, entry.vocabulary or entry.shape[-1]
        return Encoding(self, transformer, entry.shape[0], size, tokens, Policy.parse(precision))

"""Fields of a causal diffusion autoencoder: what a config may say, with the switches between the paper and its released code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causal_gen.models.picture_config import PictureConfig
from causal_gen.nn.precision import Policy
from causal_gen.process.gaussian import GaussianProcess
from causal_gen.sampling import ddim
from causal_gen.sampling.base import SamplingConfig
from causal_gen.scm.block import BlockScm
from causal_gen.scm.marginal import Marginal, Scaling
from causal_gen.structure.graph import Dag
from causal_gen.types import ConfigError, Entry, at_least, choice


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Widths of the strided convolutions, of the hidden layer (0: none), and the normalisation."""

    widths: tuple[int, ...] = (32, 64, 96, 128)
    hidden: int = at_least(256, 0)
    norm: str = choice("group", "batch")
    groups: int = at_least(8, 1)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The decoder's network; see nn/unet.py."""

    channels: int = at_least(32, 2)
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = at_least(1, 1)
    groups: int = at_least(8, 1)
    head_dim: int = at_least(32, 1)
    attention: tuple[int, ...] = ()
    middle_attention: bool = True
    modulation: str = choice("scale_shift", "shift")
    coordinates: int = at_least(4, 0, 8)
    patch: int = at_least(1, 1)
    canvas: int = at_least(0, 0)
    modulate: bool = True

    def __post_init__(self):
        if any(level >= len(self.multipliers) or level < 0 for level in self.attention):
            raise ValueError(f"attention {self.attention} names a level outside 0..{len(self.multipliers) - 1}, the levels of multipliers")
        if not self.canvas and not self.modulate:
            raise ValueError("canvas=0 and modulate=false leave the decoder without its condition; set one of them")
        if self.channels % self.groups:
            raise ValueError(f"channels {self.channels} do not divide into {self.groups} groups")


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
    """Weights of eq. (2): `gamma` on both divergences (reached over `gamma_warmup` steps), each one's own, the mechanism term, and
    that of the `sketch` (models/picture_mechanism.py, eq. 4), and the `footprint` of what the factors draw on the canvas (nn/unet.py)."""

    gamma: float = at_least(0.01, 0)
    gamma_warmup: int = at_least(0, 0)
    label: float = at_least(1.0, 0)
    noise: float = at_least(1.0, 0)
    mechanism: float = at_least(0.1, 0)
    footprint: float = at_least(0.0, 0)
    sketch: float = at_least(0.001, 0)


@dataclasses.dataclass(frozen=True)
class DiffusionAEConfig:
    """The model section of a config.

    graph: edges (parent, child) over the data's factors; `nodes` fixes their order and adds isolated ones.
    scaling: (factor, "standard" | "logit") pairs; standard where a factor is not named.
    pad: pixels of background added on every side.
    label_scale: sigma_y of eq. (3) on unit scale.  fourier: frequencies of the block means that the decoder sees.
    label_forcing: share of labelled examples whose decoder is trained on a draw of p(z|y) in place of q(z|x).
    sketched: the decoder also sees the picture as an autoencoder draws it from the factors (models/sketch.py), which has the fields of
    `sketch` and is trained beside it.  decoded: one in so many examples of a batch trains the decoder, a labelled one where
    there is one; all of them train the rest.
    drop: share of examples trained without z, needed by sampling.omega; `null` is what they see instead.
    Switches towards the released code: through="u" (parents' u), noise_scale="unit", root_prior="unit", net_for_roots, fixed_variance,
    kl_reduction="sum", kl_kept_only (divergences of kept examples only), null="zero"; re-noised x_T is sampling.encode.
    """

    name: str = "diffusion_ae"
    graph: tuple[tuple[str, str], ...] = ()
    nodes: tuple[str, ...] = ()
    image: str = "image"
    block: int = at_least(4, 1)
    pad: int = at_least(0, 0)
    scaling: tuple[tuple[str, str], ...] = ()
    label_scale: float = at_least(0.05, 1e-4)
    fourier: int = at_least(4, 0, 12)
    mechanism_widths: tuple[int, ...] = (64, 64)
    label_forcing: float = at_least(0.5, 0.0, 1.0)
    drop: float = at_least(0.1, 0.0, 1.0)
    null: str = choice("learned", "zero")
    through: str = choice("z", "u")
    noise_scale: str = choice("learned", "unit")
    root_prior: str = choice("fitted", "unit")
    net_for_roots: bool = False
    fixed_variance: float | None = at_least(None, 0.0)
    kl_reduction: str = choice("mean", "sum")
    kl_kept_only: bool = False
    encoder: EncoderConfig = EncoderConfig()
    unet: UNetConfig = UNetConfig()
    process: GaussianProcess = GaussianProcess()
    weights: WeightsConfig = WeightsConfig()
    sketched: bool = False
    sketch: PictureConfig = PictureConfig()
    decoded: int = at_least(1, 1)

    def __post_init__(self):
        if self.sketched and self.sketch.residual:
            raise ValueError("sketch.residual: pixels' noise is the decoder's own, x_T; leave it off")
        if self.weights.footprint and not self.unet.canvas:
            raise ValueError("weights.footprint is a price of what is drawn on unet.canvas, which is 0; set a canvas, or the price to 0")

    def make(self, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: SamplingConfig, precision: str, remat: str) -> Any:
        """The model over a data source's entries. Raises `ConfigError`, with all problems of names at once."""
        from causal_gen.models.diffusion_ae import DiffusionAE  # networks are imported when one is built, not when a config is read

        factors = Dag.from_edges(self.graph, self.nodes)
        if problems := self._problems(factors, entries, stats, sampling):
            raise ConfigError(problems)
        kinds = dict(self.scaling)
        scalings = tuple(Scaling.fit(kinds.get(n, "standard"), stats[n], entries[n].low, entries[n].high) for n in factors.nodes)
        marginals = tuple(
            Marginal.fit(stats[n]["quantiles"], scaling) if self.root_prior == "fitted" and not factors.parents(n) else None
            for n, scaling in zip(factors.nodes, scalings, strict=True)
        )
        scm = BlockScm(factors, self.block, scalings, marginals, self.through)
        ddim.grid(self.process, sampling.steps, sampling.spacing)
        h, w, channels = entries[self.image].shape
        return DiffusionAE(self, scm, (h, w, channels), sampling, Policy.parse(precision), remat)

    def _problems(self, factors: Dag, entries: Mapping[str, Entry], stats: Mapping[str, Any], sampling: SamplingConfig) -> list[str]:
        """What this config and a data source disagree on, a line each."""
        problems = []
        for name in factors.nodes:
            if name not in entries or name not in stats:
                known = ", ".join(sorted(stats))
                problems.append(f"model.graph: factor {name!r} is not in the data; its factors are {known}")
        for name, _ in self.scaling:
            if name not in factors.nodes:
                problems.append(f"model.scaling: factor {name!r} is not in model.graph; its nodes are {', '.join(factors.nodes)}")
        if sampling.omega != 1 and not self.drop:
            problems.append(
                f"sampling.omega: {sampling.omega} needs a model trained without z now and then; "
                "set model.drop above 0 and train, or omega to 1"
            )
        if self.image not in entries:
            return [*problems, f"model.image: entry {self.image!r} is not in the data; its entries are {', '.join(entries)}"]
        if self.sketched and self.sketch.level is not None and self.sketch.level not in factors.nodes:
            problems.append(
                f"model.sketch.level: factor {self.sketch.level!r} is not in model.graph; its nodes are {', '.join(factors.nodes)}"
            )
        side = self.unet.patch * 2 ** (len(self.unet.multipliers) - 1)
        h, w = (length + 2 * self.pad for length in entries[self.image].shape[:2])
        if h % side or w % side:
            problems.append(f"model.pad: sides {h} x {w} do not divide by {side}, which model.unet asks for (patch and multipliers)")
        return problems

"""Fields of a transformer stack: what a config may say about its blocks."""

from __future__ import annotations

import dataclasses

from causal_gen.types import ConfigError, at_least, choice


@dataclasses.dataclass(frozen=True)
class LatentConfig:
    """Latent attention (nn/latent_attention.py): width of the latent, of the rotary key that heads share, of the queries' own latent (0:
    none), and how many neighbouring latents are merged into one."""

    rank: int = at_least(64, 2)
    rotary: int = at_least(16, 2)
    query_rank: int = at_least(0, 0)
    stride: int = at_least(1, 1)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm blocks; see nn/transformer.py.

    heads share keys in groups where `kv_heads` is smaller (0: each its own); `head_dim` 0 is width / heads.
    attention: "heads", or "latent" (MLA) with the section `latent`.
    mlp_ratio: hidden width of the feed-forward layer over width (of one expert where `experts` > 1, of which `active` serve a token);
    0 leaves the layer out.  routing: what experts are chosen by, a slot's "state", or its "graph": its state and what its gates open.
    normformer: norms after attention and inside the feed-forward layer, and a learned scale a head.
    gates: for so many places a slot's own state says by a logit whether the slot may see them, the field "gate" of `learned` (0: none).
    position: how attention hears of places (nn/positions.py); `length` bounds learned ones, `frame_weight` is that of rope_dual.
    tie: the readout is the embedding, where the model has both.  initial: standard deviation of fresh embeddings, of tokens and places.
    backend, block: of attention (nn/attention.py); "ring" where texts are so long that mesh.sequence splits them.  scan: one compiled block
    for all layers, so that compile time does not grow with depth; without it they are written out, the full unrolling of that scan, which
    is faster on a CPU: 14-30% in training, twofold in decoding.
    remat: what the backward pass recomputes of each block (nn/remat.py), no key of a config since `train.remat` says it.
    """

    width: int = at_least(256, 1)
    layers: int = at_least(6, 1)
    heads: int = at_least(8, 1)
    kv_heads: int = at_least(0, 0)
    head_dim: int = at_least(0, 0)
    attention: str = choice("heads", "latent")
    latent: LatentConfig = LatentConfig()
    qk_norm: bool = False
    mlp: str = choice("gelu", "swiglu")
    mlp_ratio: float = at_least(4.0, 0.0)
    experts: int = at_least(1, 1)
    active: int = at_least(1, 1)
    routing: str = choice("state", "graph")
    norm: str = choice("layer", "rms", "none")
    normformer: bool = False
    bias: bool = True
    gates: int = at_least(0, 0)
    position: str = choice("rope", "rope2d", "rope_dual", "alibi", "learned", "none")
    length: int = at_least(1024, 1)
    rope_base: float = at_least(10_000.0, 1.0)
    frame_weight: float = 1.0
    tie: bool = True
    initial: float = at_least(0.02, 0.0)
    backend: str = choice("blocked", "dense", "ring", "jax")
    block: int = at_least(64, 1)
    scan: bool = False
    remat: str = dataclasses.field(default="none", metadata={"handed": True})

    def __post_init__(self):
        if not self.head_dim and self.width % self.heads:
            raise ConfigError(f"width {self.width} does not divide into {self.heads} heads; change one of them or set head_dim")
        if self.heads % self.groups:
            raise ConfigError(f"{self.heads} heads do not divide into kv_heads={self.kv_heads} groups; choose a divisor of heads")
        if self.active > self.experts:
            raise ConfigError(f"active={self.active} experts of {self.experts}; a token cannot have more than there are")
        if self.routing == "graph" and not (self.gates and self.experts > 1):
            raise ConfigError('routing="graph" chooses experts by what gates open; set gates and experts, or routing to "state"')
        if self.experts > 1 and not self.mlp_ratio:
            raise ConfigError(f"experts={self.experts} are feed-forward layers, which mlp_ratio=0 leaves out; raise it or set experts to 1")
        if self.normformer and self.norm == "none":
            raise ConfigError('normformer is made of norms; set norm to "layer" or "rms"')
        rotated = self.latent.rotary if self.attention == "latent" else self.head_size
        planes = {"rope": 2, "rope_dual": 2, "rope2d": 4}.get(self.position, 1)
        if rotated % planes:
            name = "latent.rotary" if self.attention == "latent" else "the width of a head"
            raise ConfigError(f'position "{self.position}" turns pairs of features, so {name} must divide by {planes}; it is {rotated}')
        if self.attention == "latent" and (self.kv_heads or self.qk_norm):
            raise ConfigError("latent attention has one latent for all heads, normalised as it is; leave kv_heads at 0 and qk_norm off")
        if self.attention == "latent" and self.latent.stride > 1 and self.latent.rank % 2:
            raise ConfigError(
                f"latent.rank {self.latent.rank} is odd; merging (stride > 1) tells chunks apart by pairs of waves of that width"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """Fields that positions read, beside "index" and "position"."""
        return {"rope2d": ("row", "column"), "rope_dual": ("frame",)}.get(self.position, ())

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Hidden width of the feed-forward layer, at least 1."""
        return max(1, round(self.mlp_ratio * self.width))

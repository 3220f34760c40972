"""Mixed precision as one string: "params=float32,compute=bfloat16,output=float32"."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

_SHORT = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Policy:
    """Dtypes by name: of stored parameters, of matrix products, and of what a network returns."""

    params: str = "float32"
    compute: str = "float32"
    output: str = "float32"

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read "compute=bfloat16" or "params=f32,compute=bf16"; parts left out are float32. Raises ValueError, one line."""
        fields = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, dtype = part.partition("=")
            dtype = _SHORT.get(dtype, dtype)
            if name not in ("params", "compute", "output") or dtype not in _DTYPES:
                raise ValueError(f"precision {part!r} is not one of params|compute|output = {'|'.join(_DTYPES)}")
            fields[name] = dtype
        return cls(**fields)

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.compute)

    @property
    def param_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.params)

"""Fields of the mechanism of a node that is a picture."""

from __future__ import annotations

import dataclasses

from causal_gen.types import ConfigError, at_least, choice


@dataclasses.dataclass(frozen=True)
class PictureConfig:
    """An autoencoder with latents as the picture's noise (models/picture_mechanism.py).

    latents: of each group; one group is a VAE, several are a hierarchical one.  widths: of the encoder's hidden layers, and of the
    decoder's in reverse.  prior: "exogenous", or "mediator", where each group's mean and scale come from what is above it and the parents.
    likelihood: of a pixel about the decoder's output, "laplace" or "normal", with one scale that is learned.
    level: a parent that is the brightness of the picture, in 0..255: what is decoded is multiplied by it, what is encoded divided. A
    structured output layer: whoever sets it has told the model what that parent does.
    residual: pixels have noise of their own beside the latents, so that a null intervention gives the very picture back.
    effectiveness: weight of the squared error that readers of the parents, trained beside on the pictures of the data, make of pictures
    under parents drawn afresh (counterfactual training).  beta: weight of the divergence of the latents' posterior from their prior.
    """

    latents: tuple[int, ...] = at_least((32,), 1)
    widths: tuple[int, ...] = at_least((512, 512), 1)
    prior: str = choice("exogenous", "mediator")
    likelihood: str = choice("laplace", "normal")
    level: str | None = None
    residual: bool = False
    effectiveness: float = at_least(0.0, 0.0)
    beta: float = at_least(1.0, 0.0)

    def __post_init__(self):
        if not self.latents or not self.widths:
            raise ConfigError("a picture needs latents and hidden layers; give at least one number in latents and in widths")

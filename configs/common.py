"""What the configs share: how a mode is chosen, and the tiny mode that CI runs."""

from ml_collections import ConfigDict

from causal_gen.types import ConfigError


def check_mode(mode: str, known: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a mode that the config does not have."""
    if mode and mode not in known:
        raise ConfigError(f"config: unknown mode {mode!r}; the modes are {', '.join(known)}, or none for the full config")


def few_steps(config: ConfigDict) -> None:
    """Shorten training and evaluation to what takes seconds."""
    config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
    config.checkpoint.every = 2
    config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
    config.evaluate.update({"scenes": 8, "batch_size": 8})


def make_tiny(config: ConfigDict) -> None:
    """Shrink a diffusion autoencoder until two steps take seconds: the same parts, no real data."""
    config.data.size = 64
    config.data.test_size = 16
    config.model.block = 2
    config.model.mechanism_widths = (8,)
    config.model.fourier = 1
    config.model.encoder = {"widths": (8, 8, 8), "hidden": 16, "groups": 4}
    config.model.unet.update({"channels": 8, "multipliers": (1, 2), "groups": 4, "head_dim": 8, "patch": 2})
    config.sampling.steps = 5
    config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1, "learning_rate": 1e-3})
    config.checkpoint = {"every": 2}
    config.log = {"every": 2, "eval_every": 2, "eval_batches": 1, "pictures_every": 0}
    config.evaluate = {
        "scenes": 4, "cycles": 2, "batch_size": 4, "disentangle_images": 16, "slider_scenes": 1, "slider_values": 3,
    }  # fmt: skip

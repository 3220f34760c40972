"""Measure speed: one JSON object a line, median and best of --steps timed steps after a warm-up.

Suites: unet_train (an AdamW step of noise prediction, batch 16) and ddim (50 steps, 16 images, one program), on a U-Net for 32x32x3
with 64 channels times (1, 2, 2); gpt_train and unmask (batch 16), decode and attention (batch 1), see benchmark_text.py; dcm, 1,000
counterfactuals of rows, see benchmark_scm.py; loop, what training costs over its step, in --steps rounds, see benchmark_loop.py. With
--serve it times N steps for every line N on standard input,
so that several programs can be compared in turn on one machine.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import benchmark_loop, benchmark_scm, benchmark_text, cli

_STARTED = time.perf_counter()

EXAMPLE = """
python -m experiments.benchmark --suite=unet_train --steps=10
python -m experiments.benchmark --suite=ddim --no-allocator-tuning
"""

UNET = {"size": 32, "channels": 64, "multipliers": (1, 2, 2), "batch": 16, "groups": 32, "head_dim": 32}
DDIM_STEPS = 50


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_enum("suite", None, [*SUITES, "loop"], "what to measure", flag_values=values)
    flags.DEFINE_integer("steps", 10, "timed steps", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("warmup", 2, "steps before them; the first one compiles", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("batch", None, "images or texts a step (default: the suite's own)", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of the network's arithmetic", flag_values=values)
    flags.DEFINE_boolean(
        "serve", False, "print set-up facts, then time N steps for every line N read, to the end of input", flag_values=values
    )


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "suite")
    if overrides:
        raise cli.UsageError(f"benchmark has no config; leave out --config.{next(iter(overrides))}")
    import jax

    if values.suite == "loop":
        if values.serve or values.dtype != "float32":
            raise cli.UsageError("--suite=loop compares two sides by itself, in float32; leave out --serve and --dtype")
        told = benchmark_loop.loop(values.steps, values.batch or benchmark_loop.BATCH)
        facts = {"device": jax.devices()[0].device_kind, "allocator": cli.allocator_is_tuned(os.environ)}
        print(json.dumps({"bench": "loop", **facts, **told}))
        return
    imported = time.perf_counter() - _STARTED
    begun = time.perf_counter()
    suite, batch = SUITES[values.suite]
    batch = values.batch or batch
    step, facts = suite(batch, values.dtype)
    head = {
        "bench": values.suite, "side": "causal_gen", "variant": "jit", "batch": batch, "dtype": values.dtype,
        "device": jax.devices()[0].device_kind, "allocator": cli.allocator_is_tuned(os.environ), **facts,
        "import_s": round(imported, 2), "build_s": round(time.perf_counter() - begun, 2),
    }  # fmt: skip
    head["first_step_s"] = round(_timed(step)[0], 3)
    for _ in range(values.warmup - 1):
        step()
    if not values.serve:
        print(json.dumps(head | summary([_timed(step) for _ in range(values.steps)], facts) | {"peak_rss_mb": _peak_rss()}))
        return
    print(json.dumps(head | {"peak_rss_mb": _peak_rss()}), flush=True)
    for line in sys.stdin:
        print(json.dumps([_timed(step) for _ in range(int(line))]), flush=True)
    print(json.dumps({"peak_rss_mb": _peak_rss()}), flush=True)


def summary(times: list[tuple[float, float]], facts: dict[str, Any]) -> dict[str, Any]:
    """Median and best wall time, median CPU time, units and FLOPs a second at both."""
    wall = sorted(wall for wall, _ in times)
    cpu = sorted(cpu for _, cpu in times)
    median, best = _median(wall), wall[0]
    return {
        "n": len(wall),
        "median_ms": round(1e3 * median, 3),
        "best_ms": round(1e3 * best, 3),
        "cpu_ms": round(1e3 * _median(cpu), 3),
        "rate": round(facts["units"] / median, 2),
        "rate_best": round(facts["units"] / best, 2),
        "gflops_s": round(facts["flops"] / median / 1e9, 1),
        "gflops_s_best": round(facts["flops"] / best / 1e9, 1),
    }


def _median(ordered: list[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])


def _timed(step: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_rss() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _network(batch: int, dtype: str) -> tuple[Any, Any, Any]:
    """The U-Net, its parameters, and a batch of standard normal images: attention at the lowest level and in the middle."""
    import jax
    import jax.numpy as jnp

    from causal_gen.nn.unet import UNet

    unet = UNet(
        out=3, channels=UNET["channels"], multipliers=UNET["multipliers"], groups=UNET["groups"], head_dim=UNET["head_dim"],
        attention=(len(UNET["multipliers"]) - 1,), modulation="shift", coordinates=False, dtype=jnp.dtype(dtype),
    )  # fmt: skip
    images = jax.random.normal(jax.random.key(1), (batch, UNET["size"], UNET["size"], 3))
    params = jax.jit(unet.init)(jax.random.key(0), images[:1], jnp.ones((1,), jnp.int32))["params"]
    return unet, params, images


def _facts(program: Any, arguments: tuple[Any, ...], batch: int, params: Any) -> dict[str, Any]:
    import jax

    from causal_gen.train.meter import count_flops

    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"unit": "image", "units": batch, "flops": count_flops(jax.make_jaxpr(program)(*arguments).jaxpr), "params": count}


def unet_train(batch: int, dtype: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A step of AdamW on the squared error of the predicted noise, at a random time for every image; the state is donated."""
    import jax
    import jax.numpy as jnp
    import optax

    from causal_gen.process.gaussian import GaussianProcess

    unet, params, images = _network(batch, dtype)
    process, optimiser = GaussianProcess(timesteps=1000, prediction="eps"), optax.adamw(1e-4, weight_decay=0.01)

    def loss(params: Any, key: Any, x0: Any) -> Any:
        keys = jax.random.split(key)
        t = jax.random.randint(keys[0], (x0.shape[0],), 1, process.timesteps + 1)
        xt, eps = process.corrupt(keys[1], x0, t)
        return jnp.mean((unet.apply({"params": params}, xt, t) - eps) ** 2)

    def update(state: Any, key: Any, x0: Any) -> tuple[Any, Any]:
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, key, x0)
        changes, moments = optimiser.update(gradient, moments, params)
        return (optax.apply_updates(params, changes), moments), value

    state = (params, jax.jit(optimiser.init)(params))
    facts = _facts(update, (state, jax.random.key(2), images), batch, params)
    step_fn = jax.jit(update, donate_argnums=0)
    holder = [state, 0]

    def step() -> float:
        holder[0], value = step_fn(holder[0], jax.random.key(holder[1]), images)
        holder[1] += 1
        jax.block_until_ready(holder[0])
        return float(value)

    return step, facts


def ddim(batch: int, dtype: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Deterministic sampling in one program, with the predicted picture clipped to [-1, 1] at every step."""
    import jax

    from causal_gen.process.gaussian import GaussianProcess
    from causal_gen.sampling import ddim as sampler

    unet, params, images = _network(batch, dtype)
    process = GaussianProcess(timesteps=1000, prediction="eps")

    def draw(params: Any, noise: Any) -> Any:
        def denoise(x: Any, t: Any) -> tuple[Any, Any]:
            return process.x0_eps(unet.apply({"params": params}, x, t), x, t)

        return sampler.decode(denoise, process, noise, DDIM_STEPS, clip=True)

    facts = _facts(lambda x, t: unet.apply({"params": params}, x, t), (images, jax.numpy.ones((batch,), "int32")), batch, params)
    facts["flops"] *= DDIM_STEPS
    jitted = jax.jit(draw)
    return lambda: jax.block_until_ready(jitted(params, images)), facts


# name: (what builds it, its batch)
SUITES: dict[str, tuple[Callable[[int, str], tuple[Callable[[], Any], dict[str, Any]]], int]] = {
    "unet_train": (unet_train, UNET["batch"]),
    "ddim": (ddim, UNET["batch"]),
    "gpt_train": (benchmark_text.gpt_train, 16),
    "decode": (benchmark_text.decode, 1),
    "unmask": (benchmark_text.unmask, 16),
    "attention": (benchmark_text.attention, 1),
    "dcm": (benchmark_scm.dcm, benchmark_scm.ROWS),
}

COMMAND = cli.Command("benchmark", __doc__, EXAMPLE, define, run, tune=True, spread=True)

if __name__ == "__main__":
    cli.start(COMMAND)

"""The arithmetic of a dry run: its bracket around a step's time, its verdict, and its list of the largest arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from causal_gen.parallel import cost
from causal_gen.parallel.cost_hlo import Collective, Moved
from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.parallel.topology import CHIPS, GIB, Topology

V5E = CHIPS["v5e"]
MEMORY = cost.Memory(arguments=2 * GIB, donated=GIB, results=GIB, temporaries=3 * GIB, code=0)


def example(**changes: float) -> cost.Cost:
    """A step of a second's compute on 4 chips, half a second of memory, .25 s of links and .125 s of network."""
    chips = Topology("v5e:2x2", 1, (None,) * 4, V5E)
    gathered = Collective("all-gather", 0.25 * V5E.ici / 7 * 8 / 5, 8, 5)
    summed = Collective("all-reduce", 0.125 * V5E.dcn, 2, 1, between_slices=True)
    moved = Moved((gathered, summed), 0.5 * V5E.hbm_rate, 0)
    told = {"flops": 4 * 197e12, "model_flops": 3 * 197e12, "peak": 4 * 197e12, **changes}
    return cost.Cost(chips, MEMORY, moved, **told)


def test_time_is_bracketed_by_all_at_once_and_one_after_another():
    assert example().seconds == pytest.approx({"compute": 1.0, "memory": 0.5, "ICI": 0.25, "DCN": 0.125})
    assert example().bracket == pytest.approx((1.0, 1.375))
    assert example(flops=197e12).bracket == pytest.approx((0.5, 0.875)), "memory is what binds then"


def test_mfu_counts_the_models_own_work():
    """Three quarters of what is computed is the model's own, so at full speed MFU is .75."""
    assert example().mfu(1.0) == pytest.approx(0.75) and example().mfu(2.0) == pytest.approx(0.375)
    assert example().intensity == pytest.approx(197e12 / (0.5 * V5E.hbm_rate))


def test_donated_arguments_are_not_counted_twice():
    assert MEMORY.total == 5 * GIB
    said = cost.report(example())
    assert "5.00 GiB   of 16.00 GiB of HBM (31%)" in said and "1,000.0 ms with all of it at once (MFU 75%)" in said
    assert all(len(line) < 140 for line in said.splitlines())


def test_without_published_peaks_nothing_is_claimed_about_time():
    here = cost.Cost(Topology("cpu:8", 1, (None,) * 8, None), MEMORY, Moved((), 1.0, 2), 8.0, 8.0, None)
    assert here.seconds == {}
    said = cost.report(here)
    assert "no published peaks" in said and "HBM" not in said and "MFU" not in said and "2 loops whose length" in said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "RESOURCE_EXHAUSTED: Compilation failure: total memory required for HLO temporaries (272.53G) exceeds available HBM (15.75G).",
            "does not fit: the compiler needs 272.53G where a device has 15.75G of HBM",
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.16G of 15.75G hbm. Exceeded",
            "the compiler needs 20.16G where a device has 15.75G of HBM",
        ),
        ("RESOURCE_EXHAUSTED: in words\nof another kind", "does not fit: RESOURCE_EXHAUSTED: in words of another kind"),
        ("INTERNAL: something else", None),
    ],
)
def test_the_compilers_words_become_one_line(message, said):
    found = cost.verdict(message)
    assert found is None if said is None else said in found and "\n" not in found


def test_the_largest_arrays_are_named_with_a_devices_part():
    """State by its sharding; what is computed by its batch axis; what a loop stacks up as a whole, with the line that stacks it."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    weight = jax.ShapeDtypeStruct((512, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))

    def step(w: jax.Array, x: jax.Array) -> jax.Array:
        hidden = x @ w  # [48, 64]
        _, stacked = jax.lax.scan(lambda h, _: (jnp.sin(h), h), hidden, None, length=10)
        return stacked.sum() + jnp.outer(hidden[0], w[:, 0]).sum()

    traced = jax.jit(step).trace(weight, jax.ShapeDtypeStruct((48, 512), jnp.float32))
    found = cost.largest(traced.jaxpr.jaxpr, cost.by_name({"w": weight}), batch=48, shards=8)
    by_shape = {array.shape: array for array in found}
    assert by_shape[512, 64].bytes == 4 * 512 * 64 / 8 and by_shape[512, 64].what == "argument w"
    assert by_shape[10, 48, 64].bytes == 4 * 10 * 48 * 64 / 8 and "scan at" in by_shape[10, 48, 64].what
    assert "test_cost.py" in by_shape[10, 48, 64].what
    assert by_shape[64, 512].bytes == 4 * 64 * 512, "no axis as long as the batch: whole"
    assert [array.bytes for array in found] == sorted((array.bytes for array in found), reverse=True)
    assert "float32[64,512]" in cost.table(found)

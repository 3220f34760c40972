"""Which axis of which leaf is split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.parallel.rules import shardings, spec_for, table
from causal_gen.types import ConfigError


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 128), P(None, "fsdp")),
        ((128, 64), P("fsdp")),
        ((3, 3, 30, 128), P(None, None, None, "fsdp")),
        ((130, 64), P(None, "fsdp")),  # 130 is larger and does not divide
        ((64,), P()),  # small leaves stay whole
        ((), P()),
    ],
)
def test_the_largest_axis_that_divides_goes_over_fsdp(mesh, shape, spec):
    assert spec_for("a", shape, mesh) == spec


def test_the_first_matching_rule_places_and_fsdp_takes_the_largest_axis_left(mesh):
    rules = (("attention/.*kernel$", (None, "tensor")), ("kernel$", ("tensor", None)))
    assert spec_for("attention/q/kernel", (64, 256), mesh, rules) == P("fsdp", "tensor")
    assert spec_for("mlp/kernel", (256, 64), mesh, rules) == P("tensor", "fsdp")
    assert spec_for("mlp/bias", (8192,), mesh, rules) == P("fsdp")


@pytest.mark.parametrize(
    ("shape", "rules", "words"),
    [
        ((6001, 3), (), "mesh.fsdp=4"),
        ((64, 65), (("kernel", (None, "tensor")),), "mesh.tensor=2"),
        ((64, 64), (("kernel", ("tensor",)),), "places 1 axes"),
        ((64, 64), (("kernel", ("tensors", None)),), "tensors"),
    ],
)
def test_what_does_not_fit_is_an_error_naming_the_leaf_or_rule(mesh, shape, rules, words):
    with pytest.raises(ConfigError, match=words) as caught:
        spec_for("deep/kernel", shape, mesh, rules)
    assert "kernel" in str(caught.value) and "\n" not in str(caught.value)


def test_moments_lie_where_their_parameters_lie_and_the_table_counts_bytes_of_one_device(mesh):
    params = {"kernel": jax.ShapeDtypeStruct((64, 128), jnp.float32), "bias": jax.ShapeDtypeStruct((128,), jnp.bfloat16)}
    placed = shardings({"params": params, "opt": ({"mu": params}, jax.ShapeDtypeStruct((), jnp.int32))}, mesh)
    assert placed["opt"][0]["mu"] == placed["params"]
    rows = {row.path: row for row in table(params, placed["params"])}
    assert rows["kernel"].bytes == 64 * 128 * 4 // 4
    assert rows["bias"].bytes == 128 * 2
    held = jax.device_put(jnp.zeros((64, 128)), placed["params"]["kernel"])
    assert held.addressable_shards[0].data.nbytes == rows["kernel"].bytes

"""Which axis of which leaf is split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from causal_gen.parallel.mesh import MeshConfig, make_mesh
from causal_gen.parallel.rules import shardings, spec_for, table
from causal_gen.train.state import State
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
        ((64, 64), (("kernel", ("tensor", "tensor")),), "twice"),
        ((64, 64), (("kernel", ("...", None, None, None)),), "places 3 axes"),
    ],
)
def test_what_does_not_fit_is_an_error_naming_the_leaf_or_rule(mesh, shape, rules, words):
    with pytest.raises(ConfigError, match=words) as caught:
        spec_for("deep/kernel", shape, mesh, rules)
    assert "kernel" in str(caught.value) and "\n" not in str(caught.value)


def test_a_rule_that_matches_nothing_is_an_error_with_paths_that_exist(mesh):
    params = {"mlp": {"kernel": jax.ShapeDtypeStruct((64, 128), jnp.float32)}}
    with pytest.raises(ConfigError, match=r"'mpl/'.*matches no parameter.*mlp/kernel") as caught:
        shardings(params, mesh, (("mlp", (None, None)), ("mpl/", (None, None))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("decoder/blocks/attention/qkv/kernel", (2, 16, 48), P(None, None, "tensor")),
        ("decoder/blocks/attention/out/kernel", (2, 16, 16), P(None, "tensor")),
        ("decoder/blocks/mlp/in/kernel", (2, 64, 256), P(None, "fsdp", "tensor")),
        ("decoder/blocks/mlp/out/kernel", (2, 256, 64), P(None, "tensor", "fsdp")),
        ("decoder/blocks/experts/in", (2, 4, 16, 30), P(None, None, None, "tensor")),
        ("decoder/blocks/mlp_norm/scale", (2, 16), P()),
        ("embed", (255, 16), P(None, "tensor")),  # an odd vocabulary: the width in its place
        ("unet/up_0_1/conv_out/kernel", (3, 3, 8, 8), P(None, None, "tensor")),
        ("unet/middle_attention/qkv/kernel", (5, 15), P()),  # small, and indivisible
    ],
)
def test_pairs_of_matrices_are_split_by_columns_and_by_rows_without_a_word_in_the_config(mesh, path, shape, spec):
    assert spec_for(path, shape, mesh) == spec
    assert "tensor" not in tuple(spec_for(path, shape, make_mesh(MeshConfig(data=2, fsdp=4))))


def test_what_the_defaults_cannot_split_is_named_and_the_config_has_the_first_word(mesh):
    path, shape = "decoder/blocks/mlp/in/kernel", (4, 64, 801)
    with pytest.raises(ConfigError, match=r"mlp/in/kernel.*801 does not divide over mesh\.tensor=2.*mesh\.rules"):
        spec_for(path, shape, mesh)
    assert spec_for(path, shape, mesh, (("mlp/in", ("...", "tensor", None)),)) == P("fsdp", "tensor")


def test_without_fsdp_large_leaves_that_no_rule_knows_are_split_over_tensor():
    alone = make_mesh(MeshConfig(data=4, tensor=2))
    assert spec_for("canvas", (4, 64, 128), alone) == P(None, None, "tensor")
    with pytest.raises(ConfigError, match=r"no free axis of canvas.*mesh\.tensor=2"):
        spec_for("canvas", (63, 65, 3), alone)


def test_moments_lie_where_their_parameters_lie_and_the_table_counts_bytes_of_one_device(mesh):
    params = {"kernel": jax.ShapeDtypeStruct((64, 128), jnp.float32), "bias": jax.ShapeDtypeStruct((128,), jnp.bfloat16)}
    count = jax.ShapeDtypeStruct((), jnp.int32)
    placed = shardings(State(params, params, ({"mu": params}, count), count), mesh, (("^kernel$", (None, "tensor")),))
    assert placed.params["kernel"].spec == P("fsdp", "tensor"), "a rule is about the path of the parameter, not of its moment"
    assert placed.opt[0]["mu"] == placed.ema == placed.params and placed.step.spec == P()
    rows = {row.path: row for row in table(params, placed.params)}
    assert rows["kernel"].bytes == 64 * 128 * 4 // 8
    assert rows["bias"].bytes == 128 * 2
    held = jax.device_put(jnp.zeros((64, 128)), placed.params["kernel"])
    assert held.addressable_shards[0].data.nbytes == rows["kernel"].bytes

"""The mesh and how a batch lies on it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from causal_gen.parallel.mesh import MeshConfig, check_batch_size, make_mesh, put_batch
from causal_gen.types import ConfigError


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (8, 1, 1, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), (2, 2, 2, 1)),
        (MeshConfig(data=1, fsdp=-1, sequence=2), (1, 4, 1, 2)),
    ],
)
def test_sizes_multiply_to_the_devices_and_minus_one_is_the_rest(config, shape):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.values()) == shape
    assert set(mesh.devices.flatten()) == set(jax.devices())
    assert mesh.axis_types == (AxisType.Auto,) * 4  # Explicit axes would turn a sharded contraction into an error


@pytest.mark.parametrize("config", [MeshConfig(data=3), MeshConfig(data=4), MeshConfig(data=-1, fsdp=16), MeshConfig(data=-1, tensor=3)])
def test_sizes_that_do_not_fit_are_one_line_naming_sizes_and_devices(config):
    with pytest.raises(ConfigError, match=r"mesh\.data=.*8 devices") as caught:
        make_mesh(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{"data": -1, "fsdp": -1}, {"data": 0}, {"tensor": -2}, {"mode": "pmap", "fsdp": 2}])
def test_contradictory_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="mesh sizes|mesh size|pmap"):
        MeshConfig(**sizes)


def test_a_batch_is_split_over_data_and_fsdp_in_order():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rows = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    placed = put_batch(mesh, {"x": rows})["x"]
    np.testing.assert_array_equal(np.asarray(placed), rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
    assert len({shard.index[0].start for shard in placed.addressable_shards}) == 4


def test_a_batch_that_does_not_split_is_refused_with_the_multiple_that_would():
    mesh = make_mesh(MeshConfig())
    check_batch_size(mesh, 32, 4)
    with pytest.raises(ConfigError, match=r"train\.batch_size=24.*multiple of 16"):
        check_batch_size(mesh, 24, 2)

"""The mesh and how a batch lies on it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from causal_gen.build import build, complete, load_config
from causal_gen.parallel.mesh import MeshConfig, check_batch_size, current, fetch, make_mesh, put_batch, replicated, spread
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


@dataclasses.dataclass(frozen=True)
class Tpu:
    """As much of a TPU as a mesh asks for."""

    id: int
    slice_index: int

    platform, device_kind, process_index, core_on_chip = "tpu", "TPU v4", 0, 0

    @property
    def coords(self):
        """In a slice of 2 x 2."""
        return (self.id // 2 % 2, self.id // 4, 0)


def test_slices_are_groups_of_devices_and_replicas_outside_of_all_other_axes():
    config = MeshConfig(slices=2, data=-1, tensor=2)
    mesh = make_mesh(config)
    assert dict(mesh.shape) == {"slice": 2, "data": 2, "fsdp": 1, "tensor": 2, "sequence": 1}
    assert [{device.id for device in group.flatten()} for group in mesh.devices] == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    rows = put_batch(mesh, {"x": np.arange(8, dtype=np.float32)})["x"]
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2,)}
    check_batch_size(mesh, 8)
    with pytest.raises(ConfigError, match=r"mesh\.slices x mesh\.data x mesh\.fsdp.*multiple of 4"):
        check_batch_size(mesh, 6)
    with pytest.raises(ConfigError, match=r"mesh\.slices=3"):
        make_mesh(MeshConfig(slices=3))


def test_tpus_say_themselves_in_which_slice_they_lie():
    """Here they come in turn, as processes of two slices may list them."""
    tpus = [Tpu(i, i % 2) for i in range(8)]
    mesh = make_mesh(MeshConfig(slices=2), tpus)
    assert [{tpu.slice_index for tpu in group.flatten()} for group in mesh.devices] == [{0}, {1}]
    with pytest.raises(ConfigError, match="set mesh.slices=2"):
        make_mesh(MeshConfig(slices=4), tpus)


@pytest.mark.parametrize("config", [MeshConfig(data=3), MeshConfig(data=4), MeshConfig(data=-1, fsdp=16), MeshConfig(data=-1, tensor=3)])
def test_sizes_that_do_not_fit_are_one_line_naming_sizes_and_devices(config):
    with pytest.raises(ConfigError, match=r"mesh\.data=.*8 devices") as caught:
        make_mesh(config)
    assert "\n" not in str(caught.value)


def test_rules_come_from_a_config_or_a_command_line():
    written = load_config("configs/causal_transformer/text.py:tiny", {"mesh.rules": '[["embed$", ["tensor", null]]]'})
    assert build(written).mesh.rules == (("embed$", ("tensor", None)),)
    with pytest.raises(ConfigError, match=r"mesh: rules: '\(' is no regular expression"):
        complete(load_config("configs/causal_transformer/text.py:tiny", {"mesh.rules": (("(", ()),)}))


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


def test_rows_are_spread_over_the_mesh_of_the_parameters_and_come_back_whole():
    rows = {"x": np.arange(16.0).reshape(8, 2), "odd": np.arange(3)}
    alone = spread(rows)
    assert all(len(leaf.sharding.device_set) == 1 for leaf in alone.values())
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with current({"w": jax.device_put(np.ones(2), replicated(mesh))}):
        found = spread(rows)
    with current({"w": jax.device_put(np.ones(2), jax.devices()[3])}):
        assert jax.sharding.get_mesh().empty
    assert found["x"].dtype == np.float32 and {shard.data.shape for shard in found["x"].addressable_shards} == {(2, 2)}
    assert found["odd"].sharding.is_fully_replicated and len(found["odd"].sharding.device_set) == 8
    for name, value in fetch(found).items():
        np.testing.assert_array_equal(value, rows[name])

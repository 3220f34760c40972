"""Which topologies exist, and what is said of those that do not."""

from __future__ import annotations

import importlib.util

import jax
import pytest

from causal_gen.parallel import topology
from causal_gen.train import meter
from causal_gen.types import ConfigError, UserError


def test_simulated_devices_are_this_processs_own():
    found = topology.find("cpu:8")
    assert found.devices == tuple(jax.devices("cpu")) and found.chip is None
    assert len(topology.find("cpu:3").devices) == 3
    assert len(topology.find("cpu:2", slices=4).devices) == 8


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:3x5", "v5e:16x17", "v5e:2x2x2", "v9:2x2", "cpu", "cpu:0", "cpu:many", "tpu:8", "v5p:4x4", "v5p:0x4x4"]
)
def test_a_topology_that_does_not_exist_is_one_line_with_those_that_do(name):
    with pytest.raises(ConfigError, match="does not exist; known are v4") as caught:
        topology.find(name)
    said = str(caught.value)
    assert "\n" not in said and repr(name) in said and all(known in said for known in ("v5e:{", "16x16", "v5p:{", "v6e:{", "cpu:N"))


def test_without_libtpu_the_way_to_it_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu.*not installed; pip install 'jax\[tpu\]'") as caught:
        topology.find("v5e:16x16")
    assert "\n" not in str(caught.value)


def test_more_devices_than_a_process_that_runs_already_has():
    with pytest.raises(UserError, match="512 CPU devices were asked for, this process runs 8"):
        topology.find("cpu:512")


@pytest.mark.parametrize(("name", "kind"), [("v4", "TPU v4"), ("v5e", "TPU v5 lite"), ("v5p", "TPU v5"), ("v6e", "TPU v6 lite")])
def test_every_chip_has_both_halves_of_its_peaks(name, kind):
    """A chip turns from memory to compute at 100 to 1000 FLOPs a byte; links are slower than memory, networks than links."""
    chip, flops = topology.CHIPS[name], meter.PEAKS[kind]
    assert 100 < flops / chip.hbm_rate < 1000
    assert chip.hbm_rate > chip.ici > chip.dcn > 1e9


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'jax[tpu]'")
@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("name", ["v4:4x4x4", "v5e:1x1", "v5e:2x4", "v5e:16x16", "v5p:2x2x1", "v5p:4x4x12", "v6e:8x8"])
def test_a_chip_is_one_device(name, slices):
    if name == "v5e:1x1" and slices > 1:
        pytest.skip("libtpu joins no single chips")
    found = topology.find(name, slices)
    chips = 1
    for side in name.partition(":")[2].split("x"):
        chips *= int(side)
    assert len(found.devices) == chips * slices
    assert {getattr(device, "slice_index", 0) or 0 for device in found.devices} == set(range(slices))
    kind = found.devices[0].device_kind
    assert any(kind.startswith(peak) for peak in meter.PEAKS), kind

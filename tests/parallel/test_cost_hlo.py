"""Bytes that a program moves: against programs whose bytes are known, compiled here, and against the way a TPU writes them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from causal_gen.parallel.cost_hlo import Collective, Moved, group_size, read

N = 4096
MESH = (8,)


def mesh() -> Any:
    return jax.make_mesh(MESH, ("x",), axis_types=(AxisType.Auto,))


def moved(function: Any, *specs: tuple[tuple[int, ...], PartitionSpec], out: PartitionSpec | None = None) -> Moved:
    """What `function` moves on 8 devices, given arrays of f32 in shards."""
    over = mesh()
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(over, spec)) for shape, spec in specs]
    how = {} if out is None else {"out_shardings": NamedSharding(over, out)}
    return read(jax.jit(function, **how).lower(*shapes).compile().as_text())


def test_a_sum_over_devices_is_an_all_reduce_of_the_whole():
    found = moved(lambda x: x.sum(0), ((8, N), PartitionSpec("x")), out=PartitionSpec()).collectives
    assert found == (Collective("all-reduce", 4 * N, 8, 1),)
    assert found[0].wire == 2 * 7 / 8 * 4 * N


def test_gathering_shards_is_an_all_gather_of_the_whole():
    found = moved(lambda x: x + 1, ((8 * N,), PartitionSpec("x")), out=PartitionSpec()).collectives
    assert found == (Collective("all-gather", 4 * 8 * N, 8, 1),)
    assert found[0].wire == 7 * 4 * N


def test_a_ring_sends_each_shard_on():
    def turn(x: jax.Array) -> jax.Array:
        around = [(i, (i + 1) % 8) for i in range(8)]
        return jax.shard_map(
            lambda x: jax.lax.ppermute(x, "x", around), mesh=mesh(), in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x")
        )(x)

    (found,) = moved(turn, ((8 * N,), PartitionSpec("x"))).collectives
    assert (found.kind, found.bytes, found.wire) == ("collective-permute", 4 * N, 4 * N)


@pytest.mark.parametrize("length", [3, 24])
def test_what_a_loop_exchanges_counts_as_often_as_it_turns(length):
    def scanned(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0]

    # the shards of each layer's matrix lie along what is summed over, so each layer ends in one all-reduce
    found = moved(scanned, ((16, 64), PartitionSpec(None, "x")), ((length, 64, 64), PartitionSpec(None, "x", None)))
    layers = [one for one in found.collectives if one.times > 1]
    assert sum(one.times for one in layers) in (length, length - 1) and not found.unknown_loops
    assert all(one.devices == 8 for one in layers)


def test_a_loop_of_unknown_length_counts_once_and_is_reported():
    def until(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x * 2 + 1, x)

    found = moved(until, ((8 * N,), PartitionSpec("x")))
    assert found.unknown_loops == 1 and {one.times for one in found.collectives} == {1}


def test_traffic_of_an_elementwise_program_is_one_reading_and_one_writing():
    assert moved(lambda x: jnp.sin(x) + x * 2, ((8 * N,), PartitionSpec("x"))).traffic == 2 * 4 * N


def test_a_product_reads_both_factors_and_writes_the_result():
    found = moved(lambda x, w: x @ w, ((8 * 128, 256), PartitionSpec("x")), ((256, 512), PartitionSpec())).traffic
    least = 4 * (128 * 256 + 256 * 512 + 128 * 512)
    assert least <= found <= 1.5 * least


def test_a_loop_that_reads_a_row_a_turn_reads_the_array_once():
    """Rows cut out of [t, n] by a scan cost t n in all; counted whole at every turn they would cost t as much."""
    turns, n = 64, 8 * N

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda total, row: (jnp.cos(total) + row, None), jnp.zeros(n), x)[0]

    found = moved(scanned, ((turns, n), PartitionSpec())).traffic
    assert 3 * turns * 4 * n <= found <= 6 * turns * 4 * n  # the row, the total and its new value; not 64 rows


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", 4),
        ("replica_groups=[16,8]<=[128], dimensions={0}", 8),
        ("replica_groups=[16,16]<=[64,4]T(1,0), dimensions={0}", 16),
        ("replica_groups=mesh['axis_0'=256,'axis_1'=1] {'axis_0'}, to_apply=%add", 256),
        ("replica_groups=mesh['a'=4,'b'=8,'c'=2], device_ids=([8,8]T(1,0)) {'b','c'}, dimensions={1}", 16),
    ],
)
def test_groups_are_read_in_all_three_ways_of_writing_them(text, size):
    assert group_size(text) == size


# A TPU's program, cut down: 24 layers of 10 tiles. The gather of channel 3 begins in the layers' loop and goes on beside the tiles' work.
TPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%start_gather (p: bf16[8,128]) -> bf16[128,128] {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, replica_groups=[16,16]<=[256], dimensions={0}
  ROOT %begun = (bf16[128,128]{1,0:T(8,128)(2,1)}, u32[]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%end_gather (p: bf16[8,128]) -> bf16[128,128] {
  %p.4 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.3 = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%p.4), channel_id=3, replica_groups=[16,16]<=[256], dimensions={0}
  ROOT %ended = bf16[128,128]{1,0:T(8,128)(2,1)} custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%async_collective_fusion.1 (p: bf16[8,128], q: f32[64]) -> (f32[64], bf16[128,128]) {
  %p.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %q.1 = f32[64]{0:T(128)S(1)} parameter(1)
  %all-gather.2 = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%p.1), channel_id=3, replica_groups=[16,16]<=[256], dimensions={0}
  %twice = f32[64]{0:T(128)S(1)} add(%q.1, %q.1)
  ROOT %both = (f32[64]{0:T(128)S(1)}, bf16[128,128]{1,0:T(8,128)(2,1)}) tuple(%twice, %all-gather.2)
}

%all-reduce-scatter.5 (p: f32[256]) -> f32[1] {
  %p.2 = f32[256]{0:T(128)} parameter(0)
  %all-reduce.9 = f32[256]{0:T(128)} all-reduce(%p.2), channel_id=4, replica_groups=[1,256]<=[256], to_apply=%add
  ROOT %part = f32[1]{0:T(128)} slice(%all-reduce.9), slice={[0:1]}
}

%tiles_body (s: (s32[], bf16[8,128], f32[64])) -> (s32[], bf16[8,128], f32[64]) {
  %s.1 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}) parameter(0)
  %w.1 = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%s.1), index=1
  %x.1 = f32[64]{0:T(128)S(1)} get-tuple-element(%s.1), index=2
  %fusion.1 = (f32[64]{0:T(128)S(1)}, bf16[128,128]{1,0:T(8,128)(2,1)}) fusion(%w.1, %x.1), kind=kCustom, calls=%async_collective_fusion.1
  ROOT %next = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}) tuple(%s.1, %w.1, %x.1)
}

%tiles_test (s: (s32[], bf16[8,128], f32[64])) -> pred[] {
  %ten = s32[]{:T(128)} constant(10)
  %s.2 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%s.2), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.2, %ten), direction=LT, metadata={op_name="jit(step)/while/cond/lt"}
}

%layers_body (s: (s32[], bf16[8,128], f32[64], s32[])) -> (s32[], bf16[8,128], f32[64], s32[]) {
  %s.3 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}, s32[]) parameter(0)
  %w.3 = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%s.3), index=1
  %x.3 = f32[64]{0:T(128)S(1)} get-tuple-element(%s.3), index=2
  %async-collective-start = (bf16[128,128]{1,0:T(8,128)(2,1)}, u32[]) fusion(%w.3), kind=kCustom, calls=%start_gather
  %inner = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}) tuple(%s.3, %w.3, %x.3)
  %while.1 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}) while(%inner), condition=%tiles_test, body=%tiles_body
  %async-collective-done = bf16[128,128]{1,0:T(8,128)(2,1)} fusion(%w.3), kind=kCustom, calls=%end_gather
  ROOT %after = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}, s32[]) tuple(%s.3, %w.3, %x.3, %s.3)
}

%layers_test (s: (s32[], bf16[8,128], f32[64], s32[])) -> pred[] {
  %s.4 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}, s32[]) parameter(0)
  %i.4 = s32[]{:T(128)} get-tuple-element(%s.4), index=0
  %n.4 = s32[]{:T(128)} get-tuple-element(%s.4), index=3
  ROOT %lt.4 = pred[]{:T(512)} compare(%i.4, %n.4), direction=LT
}

ENTRY %main (w: bf16[8,128], g: f32[256]) -> f32[1] {
  %w = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), sharding={devices=[16,1]<=[16]}
  %g = f32[256]{0:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %deep = s32[]{:T(128)} constant(24)
  %x = f32[64]{0:T(128)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %begin = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}, s32[]) tuple(%zero, %w, %x, /*index=3*/%deep)
  %while.2 = (s32[]{:T(128)}, bf16[8,128]{1,0}, f32[64]{0:S(1)}, s32[]) while(%begin), condition=%layers_test, body=%layers_body
  %token = token[] after-all()
  %send.1 = (f32[256]{0:T(128)}, u32[], token[]) send(%g, %token), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:255}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send-done = token[] send-done(%send.1), channel_id=1
  ROOT %fusion.9 = f32[1]{0:T(128)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.5
}
"""


def test_a_tpus_program_is_read_with_its_loops_fusions_and_slices():
    found = read(TPU, slices=2)
    assert set(found.collectives) == {
        Collective("all-gather", 2 * 128 * 128, 16, 24),  # not 240: tiles only carry it on
        Collective("reduce-scatter", 4 * 256, 256, 1),
        Collective("all-reduce", 4 * 256, 2, 1, between_slices=True),
    }
    assert not found.unknown_loops


def test_what_lives_in_a_tpus_own_memory_costs_no_traffic():
    """x is in space S(1), so that what is left can be added up by hand."""
    gather, gradient = 24 * 2 * 128 * 128, 4 * 256
    tests = (24 + 240) * (4 + 4 + 1)  # of the loops: two numbers read, an answer written
    # the gradient is copied for sending (read, written) and reduced; a number of it comes out
    assert read(TPU, slices=2).traffic == gather + 2 * gradient + gradient + 4 + tests


def test_a_dtype_of_less_than_a_byte_is_counted_as_such():
    text = "ENTRY %main (x: s4[16]) -> f8e4m3fn[8] {\n  %x = s4[16]{0} parameter(0)\n  ROOT %y = f8e4m3fn[8]{0} custom-call(%x)\n}\n"
    assert read(text).traffic == 16 / 2 + 8
    assert np.isclose(read(text.replace("s4[16]", "pred[16]")).traffic, 16 + 8)

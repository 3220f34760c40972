"""Named visibilities: their pictures, and what a picture cannot say."""

import inspect
import re
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_gen.structure import masks, variants
from causal_gen.structure.graph import Dag
from causal_gen.structure.masks import causal, dag, skip_causal, stride_aware, tree, tree_fields
from causal_gen.structure.visibility import Visibility, fields_for
from causal_gen.types import ConfigError

DRAWN = re.compile(r"`([^`]+\.show\([^`]*\))`\n\n((?: +[#.\d ]+\n)+)")


def constructors() -> dict[str, str]:
    """Name -> docstring of every public function that makes a visibility."""
    found = {}
    for module in (masks, variants):
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
            if own and inspect.signature(value).return_annotation == "Visibility":
                found[name] = inspect.cleandoc(value.__doc__ or "") + "\n"
    return found


def test_every_visibility_of_the_house_is_drawn():
    named = set(constructors())
    assert named >= {
        "full", "causal", "prefix", "same_document", "same_segment", "segment_block", "block_causal", "window", "dilated", "order",
        "skip_causal", "tree", "stride_aware", "label_blocks", "dag", "learned", "soft", "per_layer", "per_head",
    }  # fmt: skip
    assert all(DRAWN.search(text) for text in constructors().values())


@pytest.mark.parametrize("name", sorted(constructors()))
def test_pictures_in_docstrings_are_what_show_draws(name):
    for call, picture in DRAWN.findall(constructors()[name]):
        drawn = eval(call, {**vars(masks), **vars(variants)})
        assert drawn == textwrap.dedent(picture).rstrip("\n"), f"{call} draws\n{drawn}"


def test_a_token_of_a_tree_sees_the_line_of_its_parents_and_nobody_else():
    rng = np.random.default_rng(0)
    fields_of = jax.jit(tree_fields)
    for _ in range(20):
        parents = [-1, *(int(rng.integers(-1, i)) for i in range(1, 9))]
        q, k = fields_for(9, 9, **fields_of(jnp.asarray(parents)))
        seen = np.asarray(tree()(q, k))[0, 0]
        for i in range(9):
            line, node = {i}, parents[i]
            while node >= 0:
                line.add(node)
                node = parents[node]
            assert set(np.flatnonzero(seen[i]).tolist()) == line


def test_context_before_a_tree_is_seen_by_every_candidate():
    """enter 0 and leave of at least n, as `tree_fields` says, with the candidates' own numbers unchanged."""
    nodes = tree_fields([-1, 0, 0])
    fields = {"enter": jnp.concatenate([jnp.zeros(2, jnp.int32), nodes["enter"]])}
    fields["leave"] = jnp.concatenate([jnp.full(2, 9), nodes["leave"]])
    assert (causal() & tree()).show(5, **fields) == "#....\n##...\n###..\n####.\n###.#"


def test_stride_one_is_causal_and_stride_t_sees_only_itself_in_an_open_chunk():
    assert stride_aware(1).show(6) == causal().show(6)
    assert stride_aware(6).show(5) == "#....\n.#...\n..#..\n...#.\n....#"


def test_a_noisy_copy_never_leaks_its_own_clean_block():
    """Blocks of one token: the noisy copies see strictly the past, as in next-token prediction."""
    block, noisy = [0, 1, 2, 3] * 2, [0] * 4 + [1] * 4
    q, k = fields_for(8, 8, block=block, noisy=noisy)
    seen = np.asarray(skip_causal()(q, k))[0, 0]
    np.testing.assert_array_equal(seen[4:, :4], np.tri(4, k=-1, dtype=bool))
    np.testing.assert_array_equal(seen[4:, 4:], np.eye(4, dtype=bool))
    assert not seen[:4, 4:].any()


def test_causal_over_a_fraction_needs_no_fixed_number_of_frames():
    """Video-CCAM: 4 queries over any number of frames; the last sees all, each sees no less than the one before."""
    for frames in (4, 6, 9):
        fraction = ((np.arange(4) + 1) / 4, (np.arange(frames) + 1) / frames)
        rows = causal("fraction").show((4, frames), fraction=fraction).splitlines()
        assert [row.count("#") for row in rows] == [frames * (i + 1) // 4 for i in range(4)]


def test_nodes_outside_a_graph_see_and_show_nothing():
    assert dag(Dag(("a", "b"), (("a", "b"),))).show(3, node=[0, 1, -1]) == "#..\n##.\n..."
    assert dag(Dag(("a", "b"), (("a", "b"),))).show(3, node=[0, 7, 1]) == "#..\n...\n#.#"
    with pytest.raises(ConfigError, match="no nodes"):
        dag(Dag(()))


def test_a_wrong_argument_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="unexpected keyword argument 'length'"):
        masks.window(3, length=4)
    assert isinstance(masks.window(3), Visibility)
    for wrong, message in (
        (lambda: masks.window(0), "window: size is 0"),
        (lambda: masks.dilated(-1), "dilated: step is -1"),
        (lambda: stride_aware(0), "stride_aware: stride is 0"),
        (lambda: masks.prefix(-2), "prefix: length is -2"),
        (lambda: masks.prefix(np.array([1, 0, 1])), "prefix: unhashable.*arrays are fields"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()

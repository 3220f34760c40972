"""The contributor's guide is run as it stands: its new mask is defined, drawn, combined and asked pair by pair."""

import re
import textwrap
from pathlib import Path

import numpy as np
from structure.expressions import pair_by_pair

from causal_gen.structure import masks, variants
from causal_gen.structure.tiles import tiles
from causal_gen.structure.visibility import Visibility, fields_for

GUIDE = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()


def test_the_example_of_a_new_mask_draws_its_picture_and_keeps_the_laws():
    space: dict = {}
    exec(re.findall(r"```python\n(.*?)```", GUIDE, re.S)[0], space)
    text = space["powers_of_two"].__doc__
    call, picture = re.findall(r"`([^`]+\.show\([^`]*\))`\n\n((?: +[#.]+\n)+)", text)[0]
    assert eval(call, space) == textwrap.dedent(picture).rstrip("\n")

    q, k = fields_for(5, 9)
    visibility = space["causal"]() & space["powers_of_two"]()
    twin = pair_by_pair(lambda q, k: q["index"] - k["index"] in (0, 1, 2, 4, 8), q, k, 1)
    np.testing.assert_array_equal(visibility(q, k)[0], twin)
    np.testing.assert_array_equal(tiles(visibility, q, k, 1, 1), twin[0])
    assert visibility.fields == {"index"}


def test_the_one_liners_of_the_guide_are_visibilities():
    space = {**vars(masks), **vars(variants)}
    lines = re.findall(r"^    ((?:causal|same|per_layer)\(.*?)(?: +#.*)?$", GUIDE, re.M)[:3]
    made = [eval(f"[{line}]", space) for line in lines]
    assert [len(line) for line in made] == [1, 1, 3] and all(isinstance(value, Visibility) for line in made for value in line)

"""Negative control of morphomnist.py: the edge is turned round, so that do(intensity) moves the thickness, which it must not.

python -m experiments.train --config=configs/diffusion_ae/morphomnist_reversed.py --workdir=runs/reversed --config.data.root=FOLDER

Measured, seed 0, 2,000 steps, 128 test digits: do(intensity) moves the thickness by .319 pixel above the instrument's floor (the right
graph: .094), so this model fails, as it has to.
"""

from ml_collections import ConfigDict

from configs.common import check_mode
from configs.diffusion_ae import morphomnist


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("tiny",))
    config = morphomnist.get_config(mode)
    config.model.graph = (("intensity", "thickness"),)
    # the plain model is enough for a control; its sketch would need the brightness to be a cause that nothing else hangs on
    config.model.update({"sketched": False, "decoded": 1})
    del config.model.sketch
    del config.model.process.schedule
    config.sampling.spacing = 1.0
    config.train.batch_size = 8
    if not mode:
        # a control needs no more than a model that answers: a third of the time
        config.train.update({"steps": 2_000, "time_limit": 400.0})
    return config

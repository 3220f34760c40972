"""Linear-Gaussian structural model of four nodes, fitted by least squares: the case in which every answer has a closed form.

    python -m experiments.train --config=configs/structural/linear.py --workdir=runs/linear
    python -m experiments.counterfactual --workdir=runs/linear --do=a=1 --num=4
    python -m experiments.evaluate --workdir=runs/linear

Equations (1) of causal_gen/data/scm.py, 10,000 rows. Nothing is left to train: the parameters are there before the only step.

Measured, seeds 0, 1, 2 of the data: largest mean absolute error of a counterfactual over all do and nodes .016, .034, .036 (bar .06), nats
a held-out row above the equations' own .0001, .0007, .0013 (se .0004 to .0007). Shares of the variance of d that come from the noise of
a, b, c, d: .298, .004, .503, .195; .291, .005, .506, .198; .280, .005, .518, .197; true .300, .004, .500, .195.

Interaction, y by a network of 16 units, seeds 0 to 3, x from 1 to 2: TE off by .026, .030, .047, .021, NDE by -.046, .054, -.015, -.013,
NIE by -.006, -.032, .032, -.008 (true 2.5, -.05, 1.8). Least squares with the right product in it: root mean square errors of .030, .020
and .020 over 40 seeds, so that no fit of 10,000 rows is always within .03. Held-out nats above the equations' own .0015, .0030, .0009,
.0013.

Modes: `mediator` and `interaction` (equations (4), the latter with a product that no line fits) and `tiny` (CI).
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("mediator", "interaction", "tiny"))
    mediator = mode in ("mediator", "interaction")
    graph = (("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")) if not mediator else (("x", "m"), ("x", "y"), ("m", "y"))
    config = ConfigDict()
    config.data = {"name": "scm", "system": "mediator" if mediator else "linear", "size": 10_000, "test_size": 4_000}
    if mode == "interaction":
        config.data.interaction = 0.5
    config.model = {"name": "structural", "graph": graph, "default": {"name": "linear"}}
    if mode == "interaction":
        config.model.mechanisms = {"y": {"name": "additive", "widths": (16,)}}
    config.train = {"steps": 1, "batch_size": 256, "learning_rate": 3e-3, "ema_decay": None}
    if mode == "interaction":
        # little regularisation and many steps: weight decay flattens the product, and short runs have not bent to it
        config.train = {"steps": 6_000, "batch_size": 512, "learning_rate": 0.02, "ema_decay": 0.998}
    config.checkpoint = {"every": config.train.steps}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 2_000, "batch_size": 1_000}
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16})
        config.train.update({"steps": 2, "batch_size": 8})
        config.checkpoint.every = 2
        config.log.update({"every": 1, "eval_every": 2, "eval_batches": 1})
        config.evaluate.update({"scenes": 8, "batch_size": 8})
    return config

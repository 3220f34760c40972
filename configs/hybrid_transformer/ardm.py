"""ARDM: any number of hidden tokens, with the weight that makes the loss a bound over orders (Hoogeboom et al. 2022).

    python -m experiments.train --config=configs/hybrid_transformer/ardm.py --workdir=runs/ardm
    python -m experiments.evaluate --workdir=runs/ardm

Data, network and training of md4.py, whose bound in continuous time is the same number by other draws. Modes: `ordered` (always left to
right: an autoregressive model in one order) and `tiny` (CI).
"""

from configs.common import check_mode
from configs.hybrid_transformer import md4


def get_config(mode: str = ""):
    check_mode(mode, ("ordered", "tiny"))
    config = md4.get_config("tiny" if mode == "tiny" else "")
    config.model.objectives = ({"kind": "any_order", "order": "identity" if mode == "ordered" else "random"},)
    if mode == "ordered":
        config.sampling = {"policy": "order"}
    return config

"""Prime: masked diffusion in which a token is masked digit by digit, so that it may be known in part (Chao et al. 2025).

    python -m experiments.train --config=configs/hybrid_transformer/prime.py --workdir=runs/prime
    python -m experiments.evaluate --workdir=runs/prime

Data, network and training of md4.py; each of the four values is two binary digits. Modes: `whole` (one digit a token, which is md4.py) and
`tiny` (CI).
"""

from configs.common import check_mode
from configs.hybrid_transformer import md4


def get_config(mode: str = ""):
    check_mode(mode, ("whole", "tiny"))
    config = md4.get_config("tiny" if mode == "tiny" else "")
    config.model.objectives = ({"kind": "diffusion", "parts": 1 if mode == "whole" else 2},)
    return config

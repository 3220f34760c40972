"""Intra-document masking: documents of a row do not see one another and count from 0; BM25 chooses neighbours (Zhao et al. 2024).

    python -m experiments.train --config=configs/causal_transformer/intra_document.py --workdir=runs/intra_document
    python -m experiments.evaluate --workdir=runs/intra_document

Documents are pieces of at most 100 characters, so that a row of 128 bytes holds about two. Modes: `random` (masked, in random order),
`causal` (the baseline: in random order, seeing whatever is before), `causal_bm25` (likewise with BM25) and `tiny` (CI).

Held-out rows are pieces of one file after another: compare the modes with --config.model.visibility='causal() & same_document()' at
evaluation, each piece alone.

Measured so, seeds 0, 1, 2, 300 steps of 8, nats a byte: `random` 1.992, 1.982, 1.966, with BM25 2.054, 2.080, 2.074; seeing across pieces
`causal` 2.092, 2.141, 2.148 and `causal_bm25` 2.178, 2.197, 2.171. The mask helps in either order, BM25 in neither.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("random", "causal", "causal_bm25", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data.update({"piece": 100, "order": "random" if mode in ("random", "causal") else "bm25"})
    if not mode.startswith("causal"):
        config.model.visibility = "causal() & same_document()"
    if mode == "tiny":
        config.data.piece = 16
        return config
    config.data.update({"documents": 150, "length": 128, "test_size": 1_000})
    config.model.transformer.update({"width": 128, "heads": 4})
    config.train.update({"steps": 300, "batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 20, "ema_decay": 0.99})
    config.log.update({"every": 20, "eval_every": 0})
    config.evaluate = {"scenes": 64}
    return config

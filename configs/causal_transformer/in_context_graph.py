"""In-context Markov chains over a latent graph of positions, and who the first layer looks at (Nichani, Damian and Lee 2024).

    python -m experiments.train --config=configs/causal_transformer/in_context_graph.py --workdir=runs/in_context_graph
    python -m experiments.evaluate --workdir=runs/in_context_graph

The last token follows from the one before it by transition rows that are new in every sequence and can be read off its (parent, child)
pairs: the first layer has to find every token's parent, the second the pairs. As in the paper two attention layers of one head without
norms or feed-forward layers; embeddings of tokens and places start large enough to be told apart and small enough for attention to start
even, where the paper's are one-hot and side by side. Modes: `chain` (the graph is a chain: an induction head), `one_layer` (the baseline
that cannot) and `tiny` (CI). Another graph: --config.data.seed=1.

Measured, seeds 0, 1, 2 of data and training, each a graph of its own: the first layer looks at the true parent at 100% of the places that
have one, in each of the three, over 512 test sequences; nats of the last token .997, .965, 1.017, above the best possible by .014, .013,
.015 (se .002 to .003). `chain`, 1,000 steps, seed 0 alone, 64 sequences: 92% (12 of 13 places), .018 above the best (se .004). Embeddings
that start at 1.0, 1,500 steps, seed 0: 92%, .020 above. `one_layer` has not been measured.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("chain", "one_layer", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data = {"name": "markov", "states": 4, "items": 16, "alpha": 0.2, "graph": "random", "size": 400_000, "test_size": 4_096}
    config.model.capture = (0,)
    config.model.transformer.update({"heads": 1, "mlp_ratio": 0.0, "norm": "none", "tie": False, "initial": 0.5})
    config.model.transformer.update({"position": "learned", "length": 16, "backend": "dense"})
    if mode == "chain":
        config.data.graph = "chain"
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "items": 8})
        return config
    config.model.transformer.update({"width": 32, "layers": 1 if mode == "one_layer" else 2})
    config.train.update({"steps": 2_000, "batch_size": 256, "learning_rate": 3e-3, "warmup_steps": 100, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.checkpoint.every = 2_000
    config.log.update({"eval_every": 0, "every": 250})
    config.evaluate = {"scenes": 512}
    return config

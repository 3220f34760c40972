"""Learned adjacency: slots say by gates what they may see, and pay for seeing (GoCE, Graph of Causal Evolution).

    python -m experiments.train --config=configs/causal_transformer/learned_graph.py --workdir=runs/learned_graph
    python -m experiments.evaluate --workdir=runs/learned_graph

Sequences are wired by a latent graph (causal_gen/data/wired.py). A slot's state gives one logit a place, and straight through it the mask
of its attention; itself it always sees, each key that it sees costs `weights.seen` nats. Half of the training rows are under an
intervention on one token, which is not scored: what is predicted of the rest has to agree with what the intervention does. Modes:
`experts` (of four small feed-forward layers two serve a slot, chosen by its state and by what its gates open), `dense` (the baseline:
causal attention without gates) and `tiny` (CI).

Measured, seeds 0 to 2 of data and training: area under the ROC curve of attention as a guess of the edges .974, .897, .942; nats a held-out
token .750, .779, .757, above the best by .027, .049, .018. That this is no more than `dense` has is not seen: it has .733, .739, .748
(.010, .008, .009 above) and reads the graph at 1.000, 1.000, .983, since attention that is free finds it too. Gates close before attention
has found its parents, and edges are lost, the more the higher the price: at weights.seen=.004 .911, .763 and .791, .850 nats. `experts`:
.917, .924, .916 and .773, .773, .761 nats, .049, .042, .023 above the best: what they gain on the worst seed they lose on the others.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("dense", "experts", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    items = 8 if mode == "tiny" else 20
    config.data = {"name": "wired", "items": items, "interventions": 0.5, "size": 20_000, "test_size": 2_000}
    config.model.capture = (0,)
    config.model.transformer.update({"position": "learned", "length": items, "backend": "dense", "tie": False, "initial": 0.5})
    config.model.transformer.qk_norm = True  # a closed gate's slope grows with e^score
    if mode != "dense":
        config.model.visibility = 'causal() & (learned("gate", "index") | same("index"))'
        config.model.transformer.gates = items
        config.model.weights = {"seen": 0.001}
    if mode == "experts":
        config.model.transformer.update({"experts": 4, "active": 2, "mlp_ratio": 2.0, "routing": "graph"})
        config.model.weights.balance = 0.01
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16})
        return config
    config.model.transformer.update({"width": 48, "layers": 1, "heads": 2})
    config.train.update({"steps": 1_500, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.01})
    config.train.ema_decay = 0.99
    config.checkpoint.every = 1_500
    config.log.update({"eval_every": 0, "every": 200})
    config.evaluate = {"scenes": 512}
    return config

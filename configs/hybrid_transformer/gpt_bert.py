"""GPT-BERT: next tokens and masked tokens in one stack, masked ones predicted a place earlier so that both share the readout.

    python -m experiments.train --config=configs/hybrid_transformer/gpt_bert.py --workdir=runs/gpt_bert
    python -m experiments.evaluate --workdir=runs/gpt_bert

Of every batch half of the rows is read causally and half of them whole, with 15 to 30% of their bytes hidden (Charpentier and Samuel 2024).
Modes: `causal` and `masked` (the baselines: all rows by one objective, asked for both), `draw` (a whole batch by one objective, by chance),
`bandit` (by what has been learned faster than usual), and `tiny` (CI).

Measured, seeds 0, 1, 2, 400 steps of 32 rows of 32 bytes, 2,000 held-out rows, nats a byte of next tokens, of masked ones, and their mean
(standard errors .012 and .017):
hybrid     2.619, 2.635, 2.600    2.594, 2.594, 2.547    2.607, 2.614, 2.574
`causal`   2.360, 2.392, 2.358    3.115, 3.035, 3.183    2.737, 2.713, 2.771
`masked`   3.298, 3.011, 3.143    2.553, 2.537, 2.495    2.925, 2.774, 2.819
Each pure model is better at its own objective and worse in the mean, at equal tokens.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps

MIXERS = {"draw": {"kind": "draw"}, "bandit": {"kind": "bandit"}}


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("causal", "masked", *MIXERS, "tiny"))
    causal, masked = {"causal": (1.0, 0.0), "masked": (0.0, 1.0)}.get(mode, (1.0, 1.0))
    config = ConfigDict()
    config.data = {"name": "text", "tokenizer": "bytes", "length": 32, "test_size": 2_000}
    config.model = {"name": "hybrid_transformer", "visibility": "causal()", "mixer": MIXERS.get(mode, {})}
    config.model.objectives = (
        {"kind": "next", "name": "causal", "share": causal},
        {"kind": "masked", "shifted": True, "low": 0.15, "high": 0.3, "share": masked},
    )
    config.model.transformer = {"width": 64, "layers": 2, "heads": 4, "position": "rope", "backend": "dense", "scan": False}
    config.train = {"steps": 400, "batch_size": 32, "learning_rate": 2e-3, "warmup_steps": 50, "weight_decay": 0.1, "ema_decay": None}
    config.checkpoint = {"every": 400}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 64, "batch_size": 250}
    if mode == "tiny":
        config.data.update({"length": 16, "documents": 4, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        few_steps(config)
    return config

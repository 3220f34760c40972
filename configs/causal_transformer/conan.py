"""Conan-embedding-v2: a causal language model made an embedder, its mask turning bidirectional softly (Li et al. 2025).

    python -m experiments.train --config=configs/causal_transformer/conan.py:language --workdir=runs/pairs_language
    python -m experiments.train --config=configs/causal_transformer/conan.py --workdir=runs/conan \
        --config.train.init_from='{"^(embed|decoder)": "runs/pairs_language"}'
    python -m experiments.evaluate --workdir=runs/conan

Pairs of texts in two languages of the same words, where only the last word says which language it is (data/pairs.py). Modes: `abrupt` (the
mask is bidirectional at once), `causal` (it stays causal), `mined` (soft, against the 16 hardest of the batch alone, mined at every step),
`language` (the causal language model that training starts from) and `tiny` (CI).

Measured, 600 steps of 64 from a language model of 600, recall@1 of 1,000 held-out rows, seeds 0 to 2: soft .481, .698, .625; abrupt .764,
.899, .750; causal .220, .368, .335. That a soft start helps retrieval is not seen at this size: what the mask opens to is worth so much
here that waiting for it costs. Against mined negatives alone all embeddings come to point one way (recall .001, .003, .001; from fresh
weights .002, .003, .003): the hardest of a model that knows nothing yet teach it nothing.
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("abrupt", "causal", "mined", "language", "tiny"))
    config = ConfigDict()
    config.data = {"name": "pairs", "concepts": 20, "words": 6, "noise": 0.0, "size": 20_000, "test_size": 1_000}
    config.model = {
        "name": "embedder",
        "visibility": {"abrupt": "full()", "causal": "causal()"}.get(mode, "soft(causal(), full())"),
        "hard": 16 if mode == "mined" else 0,
        "transformer": {"width": 32, "layers": 3, "heads": 4, "backend": "dense", "scan": True},
    }
    if mode in ("", "mined", "tiny"):
        config.model.mask_schedule = {"start": 0.0, "end": 1.0, "begin": 0, "finish": 300}
    config.train = {"steps": 600, "batch_size": 64, "learning_rate": 1e-3, "warmup_steps": 20, "ema_decay": 0.98}
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 50, "eval_every": 0, "pictures_every": 0}
    if mode == "language":
        config.model = {"name": "causal_transformer", "transformer": config.model.transformer}
        config.evaluate = {"scenes": 64}
    if mode == "tiny":
        config.data.update({"size": 64, "test_size": 16, "words": 4, "concepts": 8})
        config.model.update({"hard": 2})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2})
        config.model.mask_schedule.finish = 3
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
    return config

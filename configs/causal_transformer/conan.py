"""Conan-embedding-v2: a causal language model made an embedder, its mask turning bidirectional softly (Li et al. 2025).

    python -m experiments.train --config=configs/causal_transformer/conan.py:language --workdir=runs/pairs_language
    python -m experiments.train --config=configs/causal_transformer/conan.py --workdir=runs/conan \
        --config.train.init_from='{"^(embed|decoder)": "runs/pairs_language"}'
    python -m experiments.evaluate --workdir=runs/conan

Pairs of texts in two languages of the same words, where only the last word says which language it is (data/pairs.py). The negatives are
the 8 hardest of the batch, mined at every step. Modes: `abrupt` (the mask is bidirectional at once), `causal` (it stays causal), `unmined`
(soft, with all negatives), `language` (the causal language model that training starts from) and `tiny` (CI).

Nothing is learned in these 300 steps (seed 0): all embeddings point one way (mean cosine .99997 with any other row's partner, .99999 with
the hardest), recall@1 is .000 of 1,000; `unmined` .002 (cosine .951). What a soft start does to retrieval has therefore not been measured;
the laws are checked in tests.
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("abrupt", "causal", "unmined", "language", "tiny"))
    config = ConfigDict()
    config.data = {"name": "pairs", "size": 20_000, "test_size": 1_000}
    config.model = {
        "name": "embedder",
        "visibility": {"abrupt": "full()", "causal": "causal()"}.get(mode, "soft(causal(), full())"),
        "hard": 0 if mode == "unmined" else 8,
        "transformer": {"width": 32, "layers": 3, "heads": 4, "backend": "dense", "scan": True},
    }
    if mode in ("", "unmined", "tiny"):
        config.model.mask_schedule = {"start": 0.0, "end": 1.0, "begin": 0, "finish": 150}
    config.train = {"steps": 300, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 20, "ema_decay": 0.98}
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

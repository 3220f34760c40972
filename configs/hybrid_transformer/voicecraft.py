"""VoiceCraft: spans of codec steps move to the end and codebooks are delayed, so that one causal stack infills them (Peng et al. 2024).

    python -m experiments.train --config=configs/hybrid_transformer/voicecraft.py --workdir=runs/voicecraft
    python -m experiments.evaluate --workdir=runs/voicecraft

Streams of 24 steps of four codes of a smooth signal (causal_gen/data/codec.py). A span of three to eight steps is told last, from all
that is on both of its sides; its length is known, where the paper's model ends a span itself. Every slot is told where its step stands in
the stream. `infill` of evaluate/metrics.json is the cost of a span a code. Modes: `left` (the baseline: what follows a span is not seen)
and `tiny` (CI).

Measured, seeds 0 and 1, 1,000 steps of 64, 1,000 held-out streams, nats a code of a span: .902 and .894 given both sides, `left` .956 and
.964 given the left side; of whole streams from left to right .969 and .978, `left` .975 and .987. With slots counted as they are arranged,
seed 0: 1.063 given both sides, .990 given the left: the right side is then not read in so few steps.
"""

from ml_collections import ConfigDict

from configs.common import check_mode, few_steps


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("left", "tiny"))
    config = ConfigDict()
    config.data = {"name": "codec", "steps": 24, "codebooks": 4, "values": 4, "size": 20_000, "test_size": 1_000}
    config.model = {"name": "codebook_transformer", "codebooks": 4, "shortest": 3, "longest": 8, "right": mode != "left"}
    config.model.transformer = {"width": 64, "layers": 3, "heads": 4, "backend": "dense"}
    config.train = {"steps": 1_000, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 100, "weight_decay": 0.0, "ema_decay": 0.99}
    config.checkpoint = {"every": 1_000}
    config.log = {"every": 100, "eval_every": 0, "pictures_every": 0}
    config.evaluate = {"scenes": 64, "batch_size": 64}
    if mode == "tiny":
        config.data.update({"steps": 6, "codebooks": 2, "size": 64, "test_size": 16})
        config.model.update({"codebooks": 2, "shortest": 1, "longest": 2})
        config.model.transformer.update({"width": 16, "layers": 1, "heads": 2})
        few_steps(config)
    return config

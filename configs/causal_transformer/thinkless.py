"""ThinkLess: the end of the working is put in early, and the answer is read off without training for it (Li et al. 2025).

    python -m experiments.train --config=configs/causal_transformer/thinkless.py --workdir=runs/thinkless
    python -m experiments.evaluate --workdir=runs/thinkless

Sums of up to six digits with running sums as the working, after which the result is restated, up to eight times; then the terminator, one
of two instructions, and the answer in digits of the format that it names. Modes: `needed` (the control: every step of the working is
needed) and `tiny` (CI). The evaluation gives accuracy against the share of the working that may be written, the terminator and the
instruction for the second format being put in there.

Measured, 500 steps of 64, 256 test sums, seeds 0, 1, 2 (train and data): with half of its working cut (52.6, 52.2, 52.2% of the tokens)
the model is right in 100% on each seed (100% uncut); at 63.8, 64.0, 63.6% cut in 58.2, 64.8, 69.1%. Instructed, every answer is in the
format asked for; left alone 67, 18, 45% are. Of `needed` nothing can be spared: 24.1, 24.4, 25.1% cut leaves 9.0, 9.4, 13.7% right, chance
being 10%. What is spared is redundant by construction: in an earlier form of the task, with always six restatements, 44% cut left 57.8%
right (seed 0, 1,000 steps), for the terminator had only been seen in one place.
"""

from ml_collections import ConfigDict

from configs.causal_transformer import text
from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("needed", "tiny"))
    config = text.get_config("tiny" if mode == "tiny" else "")
    config.data = {"name": "scratchpad", "terms": 6, "base": 10, "restated": 0 if mode == "needed" else 8}
    config.data.update({"formats": 2, "size": 50_000, "test_size": 500})
    if mode == "tiny":
        config.data.update({"terms": 3, "base": 4, "restated": 2, "size": 64, "test_size": 16})
        return config
    config.model.transformer.update({"width": 64, "layers": 2, "heads": 4, "backend": "dense"})
    config.train.update({"steps": 500, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 50, "weight_decay": 0.0})
    config.train.ema_decay = 0.99
    config.train.annealing = "steps"
    config.log.eval_every = 0
    config.evaluate = {"scenes": 256, "batch_size": 256}
    return config

"""A causal transformer of 1.3 billion parameters for a TPU pod: 24 layers of width 2,048 over 49,152 tokens of BPE, texts of 2,048.

    python -m experiments.dry_run --config=configs/causal_transformer/pod.py --topology=v5e:16x16
    python -m experiments.dry_run --config=configs/causal_transformer/pod.py --topology=v5e:16x16 --slices=2
    python -m experiments.train --config=configs/causal_transformer/pod.py --workdir=runs/pod --config.data.corpus=FOLDER

Parameters and moments are in float32 and in shards over all chips of a slice (fsdp), products in bfloat16; layers are scanned, and computed
anew in the backward pass. A step is of 1,048,576 tokens: two texts a chip on v5e:16x16. Not trained here; what a dry run says of it
stands in README.md. `tiny` (CI) is in float32 over bytes.
"""

from ml_collections import ConfigDict

from configs.common import check_mode


def get_config(mode: str = "") -> ConfigDict:
    check_mode(mode, ("tiny",))
    config = ConfigDict()
    config.data = {"name": "text", "tokenizer": "bpe", "vocabulary": 49_152, "length": 2_048}
    config.model = {
        "name": "causal_transformer",
        "visibility": "causal()",
        "transformer": {
            "width": 2_048, "layers": 24, "heads": 16, "norm": "rms", "bias": False, "position": "rope",
            "backend": "blocked", "block": 512, "scan": True,
        },
    }  # fmt: skip
    config.sampling = {"temperature": 1.0}
    config.mesh = {"data": 1, "fsdp": -1}
    config.train = {"steps": 25_000, "batch_size": 512, "learning_rate": 2e-4, "warmup_steps": 1_000, "weight_decay": 0.1}
    config.train.update({"precision": "params=float32,compute=bfloat16,output=float32", "remat": "full", "ema_decay": None})
    config.checkpoint = {"every": 500}
    config.log = {"every": 50, "eval_every": 500, "eval_batches": 8, "pictures_every": 0}
    if mode == "tiny":
        config.data.update({"tokenizer": "bytes", "vocabulary": 256, "length": 16, "documents": 4, "size": 64, "test_size": 16})
        config.model.transformer.update({"width": 16, "layers": 2, "heads": 2, "block": 8})
        config.train.update({"steps": 4, "batch_size": 8, "warmup_steps": 1, "precision": "params=float32,compute=float32,output=float32"})
        config.checkpoint.every = 2
        config.log.update({"every": 2, "eval_every": 2, "eval_batches": 1})
    return config

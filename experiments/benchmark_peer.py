"""The parallel unmasking of `experiments.benchmark --suite=unmask`, written plainly in PyTorch, against it in turn on one machine.

    python -m venv .venv-torch && .venv-torch/bin/pip install torch
    .venv-torch/bin/python -m experiments.benchmark_peer --ours=.venv/bin/python --batch=1

It needs PyTorch, which the project itself does not, and prints one JSON object: the median seconds of both sides and the median over
rounds of theirs over ours. The network is the same in form and size: GPT-2 at 6 layers of width 256 without its causal
mask, the readout tied. The loop is MaskGIT's (Chang et al. 2022): 32 calls, a cosine schedule, Gumbel noise on the draw and on the choice.
Letters: b batch, t position, v vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmark_text import BYTES, GPT, UNMASK_STEPS

EXAMPLE = ".venv-torch/bin/python -m experiments.benchmark_peer --ours=.venv/bin/python --batch=4 --rounds=6"


def network(torch: Any) -> Any:
    """tokens i64 [b, t] -> logits f32 [b, t, v]; weights are drawn, since time does not depend on them."""
    nn, functional = torch.nn, torch.nn.functional
    width, heads, length = int(GPT["width"]), int(GPT["heads"]), int(GPT["length"])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.first(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
            return x + self.down(functional.gelu(self.up(self.second(x)), approximate="tanh"))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(BYTES + 1, width), nn.Embedding(length, width)
            self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(int(GPT["layers"])))), nn.LayerNorm(width)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
            return self.norm(self.blocks(x)) @ self.token.weight[:BYTES].T

    return Network().eval()


def unmask(torch: Any, net: Any, batch: int) -> Any:
    """Texts i64 [b, t] from nothing but masks."""

    def gumbel(*shape: int) -> Any:
        return -torch.log(torch.empty(shape).exponential_())

    length = int(GPT["length"])
    tokens = torch.full((batch, length), BYTES)
    with torch.inference_mode():
        for step in range(UNMASK_STEPS):
            logits, masked = net(tokens), tokens == BYTES
            drawn = (logits + gumbel(*logits.shape)).argmax(-1)
            score = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            score = score + (1 - (step + 1) / UNMASK_STEPS) * gumbel(batch, length)
            left = math.floor(length * math.cos(math.pi / 2 * (step + 1) / UNMASK_STEPS)) if step + 1 < UNMASK_STEPS else 0
            count = max(int(masked[0].sum()) - left, 1)
            best = score.masked_fill(~masked, -math.inf).topk(count, dim=-1).indices
            tokens = tokens.scatter(1, best, drawn.gather(1, best))
    return tokens


def timed(step: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def main(argv: list[str]) -> int:
    """Runs both sides in turn and prints what they took; 2 where one of them cannot be started."""
    told = argparse.ArgumentParser(prog="experiments.benchmark_peer", description="unmasking against PyTorch", epilog=f"e.g. {EXAMPLE}")
    told.add_argument("--ours", default=".venv/bin/python", help="an interpreter with causal_gen's own packages")
    told.add_argument("--cpu-devices", type=int, default=1, help="our side's CPU cut into so many devices, over which texts are spread")
    told.add_argument("--batch", type=int, default=1, help="texts a step")
    told.add_argument("--rounds", type=int, default=6, help="turns of each side")
    told.add_argument("--per", type=int, default=3, help="steps a turn")
    values = told.parse_args(argv)
    if min(values.batch, values.rounds, values.per) < 1:
        told.error("--batch, --rounds and --per are 1 at least")
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        print(f"error: {sys.executable} has no PyTorch; use one that has, as in: {EXAMPLE}", file=sys.stderr)
        return 2
    command = [values.ours, "-m", "experiments.benchmark", "--suite=unmask", f"--batch={values.batch}", "--serve"]
    command += [f"--cpu-devices={values.cpu_devices}"] if values.cpu_devices > 1 else []
    try:
        ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as e:
        print(f"error: --ours={values.ours} cannot be run ({e.strerror}); name the interpreter that `make test` uses", file=sys.stderr)
        return 2
    with ours:
        assert ours.stdin and ours.stdout
        if not ours.stdout.readline():
            print(f"error: {' '.join(command)} ended; run it by itself to see why", file=sys.stderr)
            return 2
        net, rounds = network(torch), list[tuple[list[float], list[float]]]()
        for _ in range(2):
            assert int(unmask(torch, net, values.batch).max()) < BYTES, "masks are left"
        for _ in range(values.rounds):
            theirs = [timed(lambda: unmask(torch, net, values.batch)) for _ in range(values.per)]
            ours.stdin.write(f"{values.per}\n")
            ours.stdin.flush()
            rounds.append((theirs, [wall for wall, *_ in json.loads(ours.stdout.readline())]))
    theirs, own = ([wall for side in rounds for wall in side[i]] for i in range(2))
    ratios = [statistics.median(one) / statistics.median(other) for one, other in rounds]
    found = {
        "bench": "unmask", "batch": values.batch, "rounds": values.rounds, "torch": torch.__version__,
        "threads": torch.get_num_threads(), "devices": values.cpu_devices,
        "torch_s": round(statistics.median(theirs), 4), "ours_s": round(statistics.median(own), 4),
        "ratio": round(statistics.median(ratios), 3), "ratio_best": round(min(theirs) / min(own), 3),
    }  # fmt: skip
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

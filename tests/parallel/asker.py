"""A command of several processes that is at work until a signal ends it: `python -m tests.parallel.asker --out=FILE --at=PLACE`.

PLACE is "device" (the main thread is inside of one long computation), "together" (one small computation of all after the other) or "file"
(process 0 writes FILE for a while, the others wait for it). Each process says on stderr when it is there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli

LONG = 10**10  # turns of a loop that nobody waits for


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "a file", flag_values=values)
    flags.DEFINE_string("at", None, "device, together or file", flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils

    from causal_gen.parallel import hosts, interrupt

    def there() -> None:
        print(f"process {hosts.index()} is there", file=sys.stderr, flush=True)

    def write() -> None:
        with interrupt.whole(Path(values.out)) as part, open(part, "w") as file:
            for line in range(20):
                file.write(f"{line}\n")
                file.flush()
                time.sleep(0.1)
        time.sleep(3600)

    multihost_utils.process_allgather(jnp.zeros(()))  # they know each other
    there()
    if values.at == "device":
        jax.block_until_ready(jax.jit(lambda x: jax.lax.fori_loop(0, LONG, lambda i, y: jnp.sin(y) + i, x))(1.0))
    while values.at == "together":
        multihost_utils.process_allgather(jnp.zeros(()))
    hosts.once(write)


COMMAND = cli.Command("asker", __doc__, "python -m tests.parallel.asker --at=device", define, run, hosts=True)

if __name__ == "__main__":
    cli.start(COMMAND)

"""The roll that processes call before JAX lets them join: who is missing, counted twice or counts otherwise is told to all, in one line.

Process 0 listens at the coordinator's address, the others call it and say who they are; when all have come, or time is up, every caller
hears the verdict, and the port is free again for JAX's coordination service. One JSON object each way.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from causal_gen.types import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 30.0  # seconds after which waiting is told of


class HostsError(UserError):
    """Processes that cannot start together, or differ where they must not."""


def call_roll(coordinator: str | None, processes: int | None, process: int | None, timeout: float) -> str:
    """Until all `processes` have called at HOST:PORT, at most `timeout` seconds; returns the host. Raises HostsError, the same on all."""
    if coordinator is None or processes is None or process is None:
        raise HostsError("--coordinator=HOST:PORT, --processes=N and --process=K are given together, or none of them (--distributed)")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise HostsError(f"--coordinator={coordinator}: write HOST:PORT, for instance 10.0.0.1:12345")
    if processes < 1 or not 0 <= process < processes:
        raise HostsError(f"--process={process} of --processes={processes}: processes are numbered 0 .. {max(processes, 1) - 1}")
    address, deadline = (host.strip("[]"), int(port)), time.monotonic() + timeout
    if process == 0:
        _count_heads(address, processes, deadline)
    else:
        _answer(address, {"process": process, "processes": processes, "host": socket.gethostname()}, deadline)
    return address[0]


def late(place: str, seconds: float, missing: list[int] | None = None) -> str:
    """The line for a start that did not come about; `place` begins with a space."""
    who = "not all processes came together" if missing is None else f"processes {', '.join(map(str, missing[:8]))} did not come"
    return f"{who}{place} within {seconds:.0f} s: start them all, or raise --initialization-timeout"


def _count_heads(address: tuple[str, int], processes: int, deadline: float) -> None:
    """Process 0: hear who comes, tell everyone the verdict, and free the port for JAX."""
    host, port = address
    try:
        everywhere = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
        server = socket.create_server(address) if host in LOOPBACK else socket.create_server(("", port), **everywhere)
    except OSError as error:
        raise HostsError(f"cannot listen at {host}:{port} ({os.strerror(error.errno or 0)}): give --coordinator another port") from error
    began, present, problem = time.monotonic(), {0: socket.gethostname()}, ""
    with contextlib.ExitStack() as lines:
        lines.enter_context(server)
        waiting = []
        while len(present) < processes and not problem:
            missing = [k for k in range(processes) if k not in present]
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                line = lines.enter_context(server.accept()[0])
                line.settimeout(5)
                other = json.loads(line.recv(4096))
                number, total, name = int(other["process"]), int(other["processes"]), str(other["host"])
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue  # a caller who said nothing
                problem = late(f" to {host}:{port}", time.monotonic() - began, missing)
                break
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a caller who is none of us
            waiting.append(line)
            if total != processes:
                problem = f"process {number} on {name} was told --processes={total}, process 0 --processes={processes}: give all the same"
            elif number in present:
                problem = f"--process={number} was given twice, on {present[number]} and on {name}: number the processes 0 .. {total - 1}"
            present[number] = name
        for line in waiting:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps({"problem": problem}).encode())
    if problem:
        raise HostsError(problem)


def _answer(address: tuple[str, int], me: Mapping[str, Any], deadline: float) -> None:
    """Any other process: call process 0 until it is there, then hear the verdict."""
    began = time.monotonic()
    place, told = f"{address[0]}:{address[1]}", False
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection(address, timeout=max(min(left, 10.0), 0.1)) as line:
                line.sendall(json.dumps(me).encode())
                line.settimeout(max(deadline - time.monotonic(), 0.1) + 5)  # process 0 ends first, and says why
                said = line.recv(4096)
            if said:
                problem = str(json.loads(said)["problem"])
                if problem:
                    raise HostsError(problem)
                return
        except (OSError, ValueError):
            pass  # nobody there yet, or somebody else
        if time.monotonic() >= deadline:
            raise HostsError(
                f"no coordinator came to {place} within {time.monotonic() - began:.0f} s: start --process=0 there, or raise "
                "--initialization-timeout"
            )
        if not told and time.monotonic() - began > PATIENCE:
            told = True
            text = f"process {me['process']} has waited {PATIENCE:.0f} s for the coordinator at {place}"
            print(text, file=sys.stderr, flush=True)
        time.sleep(0.2)

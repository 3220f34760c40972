"""Serve WORKDIR's page on this machine alone, with sliders that ask the model: every move samples a new counterfactual.

It listens on 127.0.0.1 and answers only pages that it served itself. Ctrl-C ends it.
"""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from absl import flags

from experiments import cli

EXAMPLE = "python -m experiments.explore --workdir=runs/demo --port=8760"
HOST = "127.0.0.1"


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "folder of a trained run", flag_values=values)
    flags.DEFINE_integer("port", 8760, "where it listens; 0: any free one", lower_bound=0, upper_bound=65_535, flag_values=values)
    flags.DEFINE_integer("num", 16, "how many scenes of the test split", lower_bound=1, flag_values=values)


def run(values: Any, overrides: dict[str, str]) -> None:
    cli.require(values, "workdir")
    from causal_gen import build as border
    from causal_gen.evaluate.live import Live

    with open_server(values.workdir, values.port) as server:  # before the work, not after it
        server.live = Live.of(border.restore(values.workdir, overrides), values.num)
        print(f"explore: {server.address} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("explore: ended", file=sys.stderr)


class Server(http.server.ThreadingHTTPServer):
    """The page of a workdir, and the model that its sliders ask, one question at a time."""

    daemon_threads = True
    workdir: str
    live: Any = None

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_address[1]}/"

    @functools.cached_property
    def lock(self) -> threading.Lock:
        """Held while the model computes: two at once would only share the cores."""
        return threading.Lock()

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """What the Host header may say. Another name that leads to this machine is a page from elsewhere that asks through the browser."""
        return frozenset(f"{name}:{self.server_address[1]}" for name in (HOST, "localhost"))


class Page(http.server.BaseHTTPRequestHandler):
    """GET / is the page, GET /answer?scene=0&FACTOR=VALUE... an answer as JSON; a refusal is {"error": one line}."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, after a look at who asks."""
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in self.server.names or (origin and origin.removeprefix("http://") not in self.server.names):
            self._refuse(403, "this page answers only at the address that explore printed; open it there")
            return
        asked = urlsplit(self.path)
        if asked.path == "/":
            from causal_gen.evaluate import report

            self._send(200, "text/html; charset=utf-8", report.render(self.server.workdir, self.server.live.describe()))
        elif asked.path == "/answer":
            self._answer(dict(parse_qsl(asked.query)))
        else:
            self._refuse(404, f"there is nothing at {asked.path}; the page is at /")

    def _answer(self, query: dict[str, str]) -> None:
        from causal_gen.types import UserError

        try:
            scene = int(query.pop("scene", "0"))
            values = {name: float(value) for name, value in query.items()}
        except ValueError as error:
            self._refuse(400, f"explore: {error}; write /answer?scene=0&FACTOR=NUMBER")
            return
        try:
            with self.server.lock:
                found = self.server.live.answer(scene, values)
        except UserError as error:
            self._refuse(400, str(error))
            return
        self._send(200, "application/json", json.dumps(found))

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, "application/json", json.dumps({"error": why}))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing a slider's move: the terminal shows the address, and stays so."""


def open_server(workdir: str, port: int) -> Server:
    """A server that listens and does not answer yet. Raises `UsageError` for a port that is taken."""
    try:
        server = Server((HOST, port), Page)
    except OSError as error:
        raise cli.UsageError(f"explore: port {port} cannot be had ({error.strerror or error}); give another, or --port=0") from error
    server.workdir = workdir
    return server


COMMAND = cli.Command("explore", __doc__, EXAMPLE, define, run, tune=True)

if __name__ == "__main__":
    cli.start(COMMAND)

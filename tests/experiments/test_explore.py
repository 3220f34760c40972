"""The page whose sliders ask the model: its answers, that they compile once, and whom it refuses."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading

import jax
import numpy as np
import pytest
from PIL import Image

import causal_gen as cg
from causal_gen.evaluate.base import to_bytes
from causal_gen.evaluate.live import Live
from causal_gen.scm import counterfactual
from experiments import explore


@pytest.fixture(scope="module")
def server(trained):
    with explore.open_server(str(trained), 0) as found:
        found.live = Live.of(cg.restore(trained), 4)
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()


def get(server, path, **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def test_the_page_names_its_sliders_and_loads_nothing_from_elsewhere(server):
    status, page = get(server, "/")
    assert status == 200 and 'name="shadow_length"' in page and "asked live" in page
    assert 'src="http' not in page and 'href="http' not in page


def test_an_answer_is_the_counterfactual_of_that_scene(server, trained):
    status, text = get(server, "/answer?scene=2&angle=10&light=80")
    assert status == 200
    found, run = json.loads(text), cg.restore(trained)
    scene = {name: value[2:3] for name, value in run.data.gather("test", np.arange(4)).items()}
    answer = counterfactual.counterfactual(run.model, run.params, jax.random.key(0), scene, cg.do(angle=10.0, light=80.0))
    assert found["factors"]["angle"] == pytest.approx(10, abs=1e-3)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["pictures"]["counterfactual"].partition(",")[2]))))
    np.testing.assert_allclose(picture, to_bytes(answer["image"][0]), atol=1)
    truth = run.data.truth("test", np.array([2]), cg.do(angle=10.0, light=80.0))["image"][0]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["pictures"]["truth"].partition(",")[2]))))
    np.testing.assert_array_equal(shown, to_bytes(truth))


def test_fifty_moves_are_one_compiled_program(server):
    get(server, "/answer?scene=0")
    before = counterfactual._predict._cache_size()
    for move in range(50):
        factor = ("angle", "light")[move % 2]
        low, high = server.live.spans[factor]
        assert get(server, f"/answer?scene={move % 4}&{factor}={low + (high - low) * move / 49:.4f}")[0] == 200
    assert counterfactual._predict._cache_size() == before


@pytest.mark.parametrize(
    ("path", "headers", "status", "said"),
    [
        ("/answer?scene=4", {}, 400, "there is no scene 4; they are 0..3"),
        ("/answer?angle=500", {}, 400, "outside of its slider"),
        ("/answer?angle=nan", {}, 400, "outside of its slider"),
        ("/answer?angel=5", {}, 400, "unknown factor 'angel'"),
        ("/answer?angle=far", {}, 400, "could not convert"),
        ("/etc/passwd", {}, 404, "there is nothing at /etc/passwd"),
        ("/", {"Host": "elsewhere.example"}, 403, "answers only at the address"),
        ("/answer?scene=0", {"Origin": "http://elsewhere.example"}, 403, "answers only at the address"),
    ],
)
def test_refusals_are_one_line(server, path, headers, status, said):
    found, text = get(server, path, **headers)
    error = json.loads(text)["error"]
    assert found == status and said in error and "\n" not in error


def test_a_taken_port_and_a_folder_that_is_no_workdir_are_named(refused, tmp_path):
    with socket.socket() as taken:
        taken.bind((explore.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} cannot be had" in refused("explore", f"--workdir={tmp_path}", f"--port={port}")
    assert "not a workdir" in refused("explore", f"--workdir={tmp_path}", "--port=0")

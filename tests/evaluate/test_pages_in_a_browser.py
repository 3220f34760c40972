"""The pages in headless Chromium, where there is one: nothing in the console, nothing fetched, no sideways scrolling at either width."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from evaluate.test_report import fill
from evaluate.test_report_study import HEAD, drawn

from causal_gen.evaluate import report

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), "")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000"]  # fmt: skip
# what the page says of itself once it stands, in a frame of the width asked for: a window may not be as narrow as a telephone
PROBE = """<!doctype html><body><script>
addEventListener("load", () => {
  const frame = document.createElement("iframe");
  frame.style = "border:0;height:4000px;width:WIDTHpx";
  frame.srcdoc = PAGE;
  frame.onload = () => setTimeout(() => {
    const inside = frame.contentWindow, found = inside.document.documentElement;
    const slider = inside.document.querySelector(".slider input");
    if (slider) { slider.value = slider.max; slider.dispatchEvent(new inside.Event("input")); }
    document.title = JSON.stringify({
      wide: found.scrollWidth, asked: inside.innerWidth, drawings: inside.document.querySelectorAll("svg").length,
      resources: inside.performance.getEntriesByType("resource").map(one => one.name),
      shown: slider ? inside.document.querySelector(".slider output").textContent : "",
    });
  }, 200);
  document.body.append(frame);
});
</script>"""


def look(page: Path, width: int, folder: Path) -> tuple[dict, list[str]]:
    """What the page says of itself at that width, and what the console said."""
    text = json.dumps(page.read_text()).replace("</", "<\\/")
    harness = folder / f"look{width}.html"
    harness.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", text))
    words = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1200", "--dump-dom", harness.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"})
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stdout[-500:] + done.stderr[-2000:]
    said = json.loads(title[1].replace("&amp;", "&"))
    return said, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", ["run", "study"])
def test_a_page_holds_its_layout_says_nothing_and_fetches_nothing(tmp_path, kind, width):
    if kind == "run":
        graph = [["angle", "shadow"], ["light", "shadow"]]
        config = {"data": {"name": "pendulum"}, "model": {"name": "diffusion_ae", "graph": graph}, "train": {"steps": 200}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        fill(tmp_path)
    else:
        (tmp_path / "study.json").write_text(json.dumps({**HEAD, "trials": drawn(30)}))
    found, console = look(report.write(tmp_path), width, tmp_path)
    assert found["asked"] == width and found["wide"] <= width, found
    assert found["resources"] == [] and console == [] and found["drawings"] >= 3
    assert kind == "study" or found["shown"] == "30"

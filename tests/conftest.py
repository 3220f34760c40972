"""Strictness for every test: 8 simulated CPU devices, no silent rank promotion, shapes checked at run time, warnings are errors.

Tests marked `slow` or `data` run only when asked for: `-m slow`, `-m data`, or `--every`.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# before jax is imported: what one device computes differs in the last bits from what one of eight computes
os.environ["XLA_FLAGS"] = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), "--xla_force_host_platform_device_count=8")))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook("causal_gen", "runtime_types.check")

jax.config.update("jax_numpy_rank_promotion", "raise")
# compiled programs are kept between runs of the suite, which is most of its time
jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(tempfile.gettempdir()) / f"causal-gen-tests-{os.getuid()}"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
MAPPINGS = 15_000  # of memory, after which programs are forgotten between modules


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", action="store_true", help="also run tests marked slow or data")
    parser.addoption("--update-golden", action="store_true", help="write the golden texts of tests/golden anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--every") or config.getoption("-m") or any("::" in arg for arg in config.args):
        return
    keep = [item for item in items if not any(item.get_closest_marker(name) for name in ("slow", "data"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in keep])
    items[:] = keep


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Datasets that tests build go to a folder of the session, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_mappings() -> Iterator[None]:
    """Every compiled program takes some of the memory mappings that Linux allows a process (65,530), and past them XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def no_real_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests marked `data` see the user's data folder."""
    if request.node.get_closest_marker("data") is None:
        monkeypatch.delenv("CAUSAL_GEN_DATA", raising=False)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be written anew rather than compared."""
    return request.config.getoption("--update-golden")

"""The side-by-side of unmasking, where PyTorch is not: it says what it needs in a line. Its numbers are measured by hand (SYSTEMS.md)."""

import sys

import pytest

from experiments import benchmark_peer


def test_an_interpreter_without_pytorch_is_told_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed, wherever this runs
    assert benchmark_peer.main(["--batch=1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "has no PyTorch" in said and "--ours=" in said


@pytest.mark.parametrize("flag", ["--batch=0", "--rounds=0", "--per=-1"])
def test_counts_below_one_are_refused(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_peer.main([flag])
    assert stopped.value.code == 2 and "1 at least" in capsys.readouterr().err

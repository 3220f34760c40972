"""Laws of the launchers: what they render is their golden text, runs as they say, and a mistake is one line.

The programs that they call are stood in for by scripts on the PATH that do the same on this machine, with real processes.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TRAIN = ["python", "-m", "experiments.train", "--config=configs/causal_transformer/pod.py"]
RENDERED = {
    "slurm_nodes": ["slurm", "--nodes=4", "--gpus=8", "--", *TRAIN, "--workdir=/shared/my run"],
    "slurm_array": ["slurm", "--array=0-4%2", "--cpus=8", "--mem=64G", "--", *TRAIN, "--workdir=runs/s{task}", "--config.log.every={task}"],
    "slurm_sweep": ["slurm", "--array=0-15", "--gpus=1", "--time=4:00:00", "--", "python", "-m", "launch.worker", "--study=/shared/study"],
    "tpu_vm": ["tpu_vm", "--name=pod", "--zone=us-central2-b", "--", *TRAIN, "--distributed", "--workdir=/shared/it's"],
    "tpu_vm_spot": [
        "tpu_vm", "--name=pod", "--zone=us-central2-b", "--spot", "--type=v5litepod-16", "--version=v2-alpha-tpuv5-lite",
        "--setup=git clone URL causal-gen", "--", *TRAIN, "--distributed", "--workdir=/shared/run",
    ],
    "gke": [
        "gke", "--name=run", "--image=registry/causal-gen:1", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--slices=2",
        "--spot", "--claim=shared:/shared", "--", *TRAIN, "--distributed", "--workdir=/shared/run",
    ],
}  # fmt: skip


def launched(words: list[str], folder: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    module, *flags = words
    words = [sys.executable, "-m", f"launch.{module}", *flags]
    path = {"PATH": f"{folder}:{os.environ['PATH']}"} if folder else {}
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300, env={**os.environ, **path, **environ})


def program(folder: Path, name: str, text: str) -> None:
    """A stand-in for `name`, first on the PATH."""
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.parametrize("name", RENDERED)
def test_a_rendered_text_is_its_golden_text(name, update_golden):
    module, *flags = RENDERED[name]
    done = launched([module, "--print", *flags])
    assert done.returncode == 0, done.stderr
    file = GOLDEN / f"launch_{name}.{'yaml' if module == 'gke' else 'sh'}"
    if update_golden:
        file.write_text(done.stdout)
    assert done.stdout == file.read_text(), f"{file.name} has changed: if it was meant to, run pytest {__file__} --update-golden"
    if module != "gke":
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True).stderr == ""


def test_the_yaml_means_what_it_says():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((GOLDEN / "launch_gke.yaml").read_text())
    job = found["spec"]["replicatedJobs"][0]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    assert found["kind"] == "JobSet" and (job["replicas"], spec["parallelism"], spec["completions"]) == (2, 4, 4)  # 16 chips, 4 a host
    assert pod["containers"][0]["command"] == RENDERED["gke"][RENDERED["gke"].index("--") + 1 :]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["containers"][0]["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2] and pod["restartPolicy"] == "Never"


SRUN = """
# as SLURM's: one process a node, its number in the environment
shift
export SLURM_NTASKS=${NODES:-1}
pids=()
for k in $(seq 0 $((SLURM_NTASKS - 1))); do SLURM_PROCID=$k "$@" & pids+=($!); done
code=0
for pid in "${pids[@]}"; do wait $pid || code=$?; done
exit $code
"""
SBATCH = 'cat > "$0.script"; exec env SLURM_SUBMIT_DIR="$PWD" SLURM_JOB_NODELIST=nodes SLURM_JOB_ID=77 bash "$0.script"'


@pytest.fixture
def cluster(tmp_path):
    """A folder with SLURM's programs as far as the script calls them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "sbatch", SBATCH)
    program(folder, "srun", SRUN)
    program(folder, "scontrol", f'if [ "$1" = show ]; then printf "127.0.0.1\\nother\\n"; else echo "$@" >> {tmp_path}/requeued; fi')
    return folder


def test_a_slurm_script_gives_every_node_its_number_and_the_words_as_they_are(cluster, tmp_path):
    code = "import sys, pathlib; pathlib.Path(sys.argv[1]).joinpath(sys.argv[-1][2:]).write_text(repr(sys.argv[2:]))"
    (tmp_path / "out").mkdir()
    flags = ["--nodes=3", "--setup=:", f"--log={tmp_path}/log", "--port=4567"]
    done = launched(["slurm", *flags, "--", sys.executable, "-c", code, str(tmp_path / "out"), "it's $HOME; a b"], cluster, NODES="3")
    assert done.returncode == 0, done.stderr
    for k in range(3):
        text = (tmp_path / "out" / f"process={k}").read_text()
        assert text == repr(["it's $HOME; a b", "--coordinator=127.0.0.1:4567", "--processes=3", f"--process={k}"])
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("codes", "starts", "code"), [("1 0", 2, 0), ("2", 1, 2), ("137 137 137", 3, 137)])
def test_a_slurm_script_starts_again_what_was_lost_and_not_what_was_mistaken(cluster, tmp_path, codes, starts, code):
    (tmp_path / "codes").write_text(codes.replace(" ", "\n") + "\n")
    script = f"code=$(head -n 1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes; echo started; exit $code"
    done = launched(["slurm", "--setup=:", "--restarts=2", f"--log={tmp_path}/log", "--", "bash", "-c", script], cluster)
    assert (done.returncode, done.stdout.splitlines().count("started")) == (code, starts)


def test_a_slurm_job_whose_time_is_up_goes_into_the_queue_again(cluster, tmp_path):
    end = str(int(time.time()) + 60)
    done = launched(["slurm", "--setup=:", f"--log={tmp_path}/log", "--", "true"], cluster, SLURM_JOB_END_TIME=end)
    assert done.returncode == 0 and (tmp_path / "requeued").read_text() == "requeue 77\n"
    (tmp_path / "requeued").unlink()
    launched(["slurm", "--setup=:", f"--log={tmp_path}/log", "--", "bash", "-c", "exit 2"], cluster, SLURM_JOB_END_TIME=end)
    assert not (tmp_path / "requeued").exists()


GCLOUD = """
echo "$4 ${@:5}" >> CALLS
case "$4" in
    describe) cat STATE 2>/dev/null ;;
    create) echo READY > STATE ;;
    delete) rm STATE ;;
    ssh)
        for word in "$@"; do case "$word" in --command=*) command=${word#--command=} ;; esac; done
        ( bash -c "$command" )
        ;;
esac
"""


def test_a_spot_vm_that_is_taken_away_is_made_again_and_the_command_goes_on(tmp_path):
    """No VM; then a run that is preempted; then one that ends well."""
    state, calls = tmp_path / "state", tmp_path / "calls"
    program(tmp_path, "gcloud", GCLOUD.replace("STATE", str(state)).replace("CALLS", str(calls)))
    once = tmp_path / "once"
    run = f"if [ -e {once} ]; then echo 'train: finished at step 9'; else touch {once}; echo PREEMPTED > {state}; exit 143; fi"
    flags = ["--name=pod", "--zone=z", "--spot", "--type=t", "--version=v", "--setup=echo set up", "--folder=.", "--wait=0"]
    done = launched(["tpu_vm", *flags, "--", "bash", "-c", run], tmp_path)
    assert done.returncode == 0, done.stderr
    made = [line.split()[0] for line in calls.read_text().splitlines()]
    assert made == ["describe", "create", "ssh", "ssh", "describe", "delete", "create", "ssh", "ssh"]
    assert done.stdout.count("set up") == 2 and "train: finished at step 9" in done.stdout


@pytest.mark.parametrize(
    ("run", "code", "starts"),
    [
        ("echo 'error: mend this'; exit 2", 2, 1),
        ("exit 1", 1, 3),
        ("echo 'train: stopped at step 3 of 9 and saved'", 1, 3),
    ],
)
def test_a_command_on_a_tpu_vm_is_started_again_unless_it_says_what_to_mend(tmp_path, run, code, starts):
    program(tmp_path, "gcloud", GCLOUD.replace("STATE", str(tmp_path / "state")).replace("CALLS", str(tmp_path / "calls")))
    flags = ["--name=pod", "--zone=z", "--folder=.", "--wait=0", "--restarts=2"]
    done = launched(["tpu_vm", *flags, "--", "bash", "-c", run], tmp_path)
    assert done.returncode == code and (tmp_path / "calls").read_text().count("ssh pod") == starts


def test_kubectl_is_given_the_yaml(tmp_path):
    program(tmp_path, "kubectl", f'echo "$@" > {tmp_path}/said; cat > {tmp_path}/given')
    assert launched(RENDERED["gke"], tmp_path).returncode == 0
    assert (tmp_path / "given").read_text() == (GOLDEN / "launch_gke.yaml").read_text() and (
        tmp_path / "said"
    ).read_text() == "apply -f -\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slurm", "--array=x", "--", "true"], "--array=x: write FIRST-LAST"),
        (["slurm", "--", "train", "--seed={task}"], "there is no array"),
        (["slurm", "--nodes=0", "--", "true"], "--nodes"),
        (["slurm"], "command is missing"),
        (["slurm", "--log=/dev/null", "--", "true"], "/dev/null"),
        (["tpu_vm", "--name=a", "--zone=b", "--spot", "--", "true"], "give its --type"),
        (["gke", "--name=Run", "--image=i", "--accelerator=a", "--topology=4x4", "--", "true"], "--name=Run"),
        (["gke", "--name=r", "--image=i", "--accelerator=a", "--topology=4by4", "--", "true"], "--topology=4by4"),
        (["gke", "--name=r", "--image=i", "--accelerator=a", "--topology=3x3", "--", "true"], "hosts of 4 chips"),
        (["gke", "--name=r", "--image=i", "--accelerator=a", "--topology=2x2", "--claim=x", "--", "true"], "CLAIM:/PATH"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words, said):
    done = launched(words)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr


@pytest.mark.parametrize(
    ("name", "program"), [("slurm_array", "sbatch"), ("tpu_vm", "gcloud"), ("gke", "kubectl")]
)  # fmt: skip
def test_a_program_that_is_not_here_is_named(tmp_path, name, program):
    (tmp_path / "bash").symlink_to("/bin/bash")
    module, *flags = RENDERED[name]
    logs = [f"--log={tmp_path}"] if module == "slurm" else []
    done = launched([module, *logs, *flags], PATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.startswith(f"error: {program} is not on the PATH") and "--print" in done.stderr


@pytest.mark.slow
def test_two_nodes_of_a_slurm_job_train_as_one(cluster, tmp_path):
    """The rendered script, real processes over loopback, the real command."""
    from launch.local import free_port

    flags = ["--nodes=2", "--setup=:", f"--log={tmp_path}/log", f"--port={free_port()}", "--restarts=0"]
    train = [sys.executable, "-m", "experiments.train", "--config=configs/causal_transformer/text.py:tiny", f"--workdir={tmp_path}/run"]
    environ = {"NODES": "2", "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = launched(["slurm", *flags, "--", *train], cluster, **environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("train: finished at step 4") == 1
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["mesh"]["data"] == 4

#!/bin/bash
#SBATCH --job-name=causal-gen
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --array=0-4%2
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm/%x-%A_%a.log

set -u
cd "$SLURM_SUBMIT_DIR"
. .venv/bin/activate

left() { echo $(( ${SLURM_JOB_END_TIME:-99999999999} - $(date +%s) )); }  # seconds that the allocation still has
for start in $(seq 0 3); do
    srun --kill-on-bad-exit=1 python -m experiments.train --config=configs/causal_transformer/pod.py --workdir=runs/s"$SLURM_ARRAY_TASK_ID" --config.log.every="$SLURM_ARRAY_TASK_ID"
    code=$?
    if [ "$(left)" -lt 150 ]; then  # the time is nearly up, and the command has saved: it goes on in another allocation
        [ "$code" -eq 2 ] || scontrol requeue "$SLURM_JOB_ID"
        break
    fi
    case "$code" in 0|2) break ;; esac  # done, or its line says what to mend
    echo "ended with $code after start $start of 3; it goes on from its last checkpoint"
done
exit "$code"

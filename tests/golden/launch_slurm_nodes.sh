#!/bin/bash
#SBATCH --job-name=causal-gen
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm/%x-%j.log

set -u
cd "$SLURM_SUBMIT_DIR"
. .venv/bin/activate
coordinator=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):12345

left() { echo $(( ${SLURM_JOB_END_TIME:-99999999999} - $(date +%s) )); }  # seconds that the allocation still has
for start in $(seq 0 3); do
    srun --kill-on-bad-exit=1 bash -c 'exec "$@" --coordinator="$0" --processes="$SLURM_NTASKS" --process="$SLURM_PROCID"' "$coordinator" python -m experiments.train --config=configs/causal_transformer/pod.py '--workdir=/shared/my run'
    code=$?
    if [ "$(left)" -lt 150 ]; then  # the time is nearly up, and the command has saved: it goes on in another allocation
        [ "$code" -eq 2 ] || scontrol requeue "$SLURM_JOB_ID"
        break
    fi
    case "$code" in 0|2) break ;; esac  # done, or its line says what to mend
    echo "ended with $code after start $start of 3; it goes on from its last checkpoint"
done
exit "$code"

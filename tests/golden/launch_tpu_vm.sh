#!/bin/bash
set -u
vm=(gcloud compute tpus tpu-vm)
name=pod
zone=us-central2-b
log=$(mktemp)

starts=0
while true; do
    :
    "${vm[@]}" ssh "$name" --zone="$zone" --worker=all --command='cd causal-gen && python -m experiments.train --config=configs/causal_transformer/pod.py --distributed '"'"'--workdir=/shared/it'"'"'"'"'"'"'"'"'s'"'"'; code=$?; echo; echo exit code $code; exit $code' 2>&1 | tee "$log"
    if grep -q 'exit code 2$' "$log"; then exit 2; fi  # its line says what to mend
    if grep -q 'exit code 0$' "$log" && ! grep -q 'exit code [1-9]' "$log" && ! grep -q 'train: stopped at step' "$log"; then exit 0; fi
    starts=$((starts + 1)); if [ "$starts" -gt 3 ]; then echo "not started again, after $starts starts"; exit 1; fi
    sleep 30
done

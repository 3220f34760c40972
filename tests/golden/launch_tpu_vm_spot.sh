#!/bin/bash
set -u
vm=(gcloud compute tpus tpu-vm)
name=pod
zone=us-central2-b
log=$(mktemp)
make() {
    until "${vm[@]}" create "$name" --zone="$zone" --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot; do sleep 30; done
    "${vm[@]}" ssh "$name" --zone="$zone" --worker=all --command='git clone URL causal-gen'
}
ready() {  # wait for the VM; make it again where it was taken away
    case "$("${vm[@]}" describe "$name" --zone="$zone" --format='value(state)' 2>/dev/null)" in
        READY) ;;
        CREATING|STARTING|RESTARTING|REPAIRING) sleep 30; ready ;;
        "") starts=0; make ;;
        *) starts=0; "${vm[@]}" delete "$name" --zone="$zone" --quiet; make ;;
    esac
}
starts=0
while true; do
    ready
    "${vm[@]}" ssh "$name" --zone="$zone" --worker=all --command='cd causal-gen && python -m experiments.train --config=configs/causal_transformer/pod.py --distributed --workdir=/shared/run; code=$?; echo; echo exit code $code; exit $code' 2>&1 | tee "$log"
    if grep -q 'exit code 2$' "$log"; then exit 2; fi  # its line says what to mend
    if grep -q 'exit code 0$' "$log" && ! grep -q 'exit code [1-9]' "$log" && ! grep -q 'train: stopped at step' "$log"; then exit 0; fi
    starts=$((starts + 1)); if [ "$starts" -gt 3 ]; then echo "not started again, after $starts starts"; exit 1; fi
    sleep 30
done

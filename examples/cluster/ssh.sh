#!/usr/bin/env bash
# ssh.sh MODEL TENSOR_PARALLEL_SIZE WORKER...: serves MODEL on this host and on the workers, which have lorikeet at the same
# path; those without the model there get their part of it from this host. The certificates are made once, in ./cluster.
# Ends the workers when the server ends.
set -euo pipefail
(($# >= 3)) || { echo "usage: $0 MODEL TENSOR_PARALLEL_SIZE WORKER..." >&2; exit 2; }
model=$1
ranks=$2
shift 2
head=${HEAD_ADDRESS:-$(hostname -f)}

[[ -d cluster ]] || lorikeet keygen --cluster cluster
workers=()
trap 'kill "${workers[@]}" 2> /dev/null || true' EXIT
for host in "$@"; do
  # A directory that is readable for its owner alone, as the files in it are.
  tar -C cluster -c worker | ssh "$host" 'umask 077 && mkdir -p .lorikeet && tar -C .lorikeet -x'
  # With a terminal, the worker ends with its connection.
  ssh -tt "$host" "lorikeet worker --join $head:29501 --cluster-dir .lorikeet/worker" < /dev/null &
  workers+=($!)
done
lorikeet serve "$model" --tensor-parallel-size "$ranks" --nnodes $(($# + 1)) --cluster-dir cluster/head

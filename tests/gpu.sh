#!/usr/bin/env bash
# The tests that need a GPU, for hosts that have one. Steps, all of them without arguments, else those named:
#   build     release build and, as "ptx80", the kernel tests as PTX of compute_80 alone: the code of consumer cards
#   tests     every test labelled gpu (several NCCL ranks share one GPU under the multi-process service)
#   engines   two engines with adapters that compute beside each other for a minute, under the multi-process service
#   peers     sums over the memory of peers at 10,000 random sizes, ranks that are lost during them, models in two shots: likewise
#   ptx80     the kernel tests from that PTX, which the driver compiles for the GPU at hand
#   sanitizers  compute-sanitizer on all tests of the kernels, with few sizes: memcheck for addresses, racecheck for races in
#             shared memory; in slices of 9 minutes, of which the second goes on where the first stopped (kernels/sanitize.py)
#   memcheck, racecheck: one of these alone
# RELEASE_BIN and PTX80_BIN name the folders of the binaries where they are not build/release/bin and build/ptx80/bin.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

release=${RELEASE_BIN:-build/release/bin}
ptx80=${PTX80_BIN:-build/ptx80/bin}
failed=()
step() { printf '\n=== %s (%(%H:%M:%S)T)\n' "$1" -1; }

# Runs `ONE ARGUMENTS...` for every line of arguments on standard input, together, as each uses little of the GPU;
# prints what each printed, and notes those that failed.
together() { # STEP ONE
  local lines logs i
  mapfile -t lines
  logs=$(mktemp -d)
  for i in "${!lines[@]}"; do
    ( read -r -a words <<< "${lines[$i]}"; $2 "${words[@]}" > "$logs/$i" 2>&1; echo $? > "$logs/$i.status" ) &
  done
  wait
  for i in "${!lines[@]}"; do
    echo "$1 ${lines[$i]}: $(cat "$logs/$i")"
    [[ $(cat "$logs/$i.status") == 0 ]] || failed+=("$1 ${lines[$i]}")
  done
  rm -rf "$logs"
}

ptx80_one() { # TEST
  timeout 600 "$ptx80/$1" --gtest_brief=1 | tail -3
  return "${PIPESTATUS[0]}"
}

with_mps() { # COMMAND...
  export CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
  nvidia-cuda-mps-control -d && "$@"
  local status=$?
  echo quit | nvidia-cuda-mps-control > /dev/null
  rm -rf "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  return $status
}

# Tests that must not skip where the service was asked for.
at_length() { # TEST FILTER
  local log status
  log=$(mktemp)
  LORIKEET_FULL=1 timeout 300 "$release/$1" --gtest_filter="$2" > "$log" 2>&1
  status=$?
  grep -E '^\[ *(OK|FAILED|SKIPPED)|Failure|^ {4}|Skipped' "$log"
  ! grep -q SKIPPED "$log" || status=1
  [[ $status == 0 ]] || tail -40 "$log"
  rm -f "$log"
  return $status
}

run_step() {
  step "$1"
  case $1 in
    build)
      for preset in release ptx80; do
        cmake --preset $preset > /dev/null && cmake --build --preset $preset --target gpu_tests || { failed+=("build $preset"); return; }
      done ;;
    tests) with_mps ctest --test-dir "$(dirname "$release")" -L gpu --output-on-failure || failed+=(tests) ;;
    engines) with_mps at_length cuda_ranks_test 'CudaEngines.*' || failed+=(engines) ;;
    peers)
      with_mps at_length nccl_collective_test '*PeerSums.*:*TwoShotRanks.*' || failed+=("peers' sums")
      with_mps at_length cuda_ranks_test 'CudaTwoShots.*:*two_shots' || failed+=("peers' models") ;;
    ptx80) together ptx80 ptx80_one < <(cd "$ptx80" && ls -d -- *_cuda_test lora_slots_test | grep -v '^cuda_') ;;
    sanitizers|memcheck|racecheck)
      local tools=$1 status=2
      [[ $tools != sanitizers ]] || tools=memcheck,racecheck
      while [[ $status == 2 ]]; do
        with_mps tests/kernels/sanitize.py "$tools" "$release" "${SANITIZE_STATE:-build/sanitize.state}"; status=$?
      done
      [[ $status == 0 ]] || failed+=("$1") ;;
    *) echo "tests/gpu.sh: unknown step '$1'" >&2; sed -n '2,12s/^# //p' "$0" >&2; exit 2 ;;
  esac
}

command -v nvidia-smi > /dev/null || { echo "tests/gpu.sh: there is no NVIDIA driver on this host" >&2; exit 1; }
[[ $# -gt 0 ]] || set -- build tests engines peers ptx80 sanitizers
for name in "$@"; do run_step "$name"; done
if [[ ${#failed[@]} -gt 0 ]]; then
  printf '\nfailed:'; printf ' [%s]' "${failed[@]}"; echo; exit 1
fi
step "all passed"

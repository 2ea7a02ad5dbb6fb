#!/usr/bin/env bash
# Set-up and all tests. Without arguments: what continuous integration runs (formatting, includes, names, a test for every way to die, release build with the
# CUDA kernels where nvcc is found, all tests, address sanitizer on the fast tests, 30 s of each fuzz target).
# --full adds: long abuse, the whole suite under the address sanitizer, the thread sanitizer, every CUDA architecture, long chaos, JSON Schema's suite,
# Jinja2 beside ours, and two engines beside each other where there is a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

full=0
for argument in "$@"; do
  case "$argument" in
    --full) full=1 ;;
    --help|-h) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    *) echo "tests/run.sh: unknown argument '$argument' (try --help)" >&2; exit 2 ;;
  esac
done

jobs=$(nproc)
step() { printf '\n=== %s (%(%H:%M:%S)T)\n' "$1" -1; }

build() { # PRESET TARGETS...: configures and builds
  cmake --preset "$1" > "build/$1.configure.log" || { cat "build/$1.configure.log"; return 1; }
  # g++ maps a precompiled header at one fixed address; now and then that is taken ("PCH allocation failure"), so a
  # build that fails is tried once more.
  cmake --build --preset "$1" -j "$jobs" --target "${@:2}" || cmake --build --preset "$1" -j "$jobs" --target "${@:2}"
}

fuzz() { # runs every fuzz target for 30 s, `jobs` at a time; a crash prints its log
  local names name failed=0
  names=$(sed -n 's/^lorikeet_fuzz(\([a-z0-9_]*\).*/\1/p' tests/fuzz/CMakeLists.txt)
  mkdir -p build/clang/fuzz
  export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
  fuzz_one() {
    mkdir -p "build/clang/fuzz/$1"
    if ! build/clang/bin/"$1" -max_total_time=30 -timeout=10 -rss_limit_mb=2048 -max_len=65536 -artifact_prefix="build/clang/fuzz/$1." \
         "build/clang/fuzz/$1" "tests/fuzz/corpus/$1" > "build/clang/fuzz/$1.log" 2>&1; then
      echo "fuzz target $1 failed:"; tail -40 "build/clang/fuzz/$1.log"; return 1
    fi
    echo "$1: $(grep -o 'Done [0-9]* runs.*' "build/clang/fuzz/$1.log" | tail -1)"
  }
  export -f fuzz_one
  printf '%s\n' $names | xargs -P "$jobs" -I{} bash -c 'fuzz_one {}' || failed=1
  return $failed
}

step "dependencies"
./launcher/install_dependencies.sh --tests
mkdir -p build
# One compiler cache for all clones of a user: paths in it are relative to the clone.
export CCACHE_DIR="${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/lorikeet/ccache}" CCACHE_BASEDIR="${CCACHE_BASEDIR:-$PWD}"
export CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_MAXSIZE=5G

step "formatting and includes"
git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format-14 --dry-run --Werror
tests/check_includes
tests/check_names
tests/check_deaths

step "release build"
build release all
step "all tests"
ctest --preset release -j "$jobs" --output-on-failure

step "abuse of a running server"
if [[ $full -eq 1 ]]; then /usr/bin/python3 tests/abuse/abuse.py --long; else /usr/bin/python3 tests/abuse/abuse.py; fi

step "chaos among the processes of a running server"
# The same faults every time, so that a failure is the change's; --long draws others, for half an hour and with little
# work for this machine, so that the sanitizers are built beside it, and the templates compared.
if [[ $full -eq 1 ]]; then
  /usr/bin/python3 tests/chaos/chaos.py --long > build/chaos.log 2>&1 &
  chaos=$!
  tests/jinja_differential.py build/release/bin/jinja_tool 600 > build/jinja.log 2>&1 &
  jinja=$!
  trap 'kill "$chaos" "$jinja" 2> /dev/null || true' EXIT
  for preset in asan clang; do build $preset all; done
  build tsan tsan_tests
  wait "$chaos" || { tail -100 build/chaos.log; exit 1; }
  tail -20 build/chaos.log
  step "the chat templates' interpreter beside Jinja2"
  wait "$jinja" || { tail -100 build/jinja.log; exit 1; }
  tail -5 build/jinja.log
  trap - EXIT
else
  /usr/bin/python3 tests/chaos/chaos.py --seed 29163
fi

step "address and undefined-behaviour sanitizers"
if [[ $full -eq 1 ]]; then
  ctest --preset asan -j "$jobs" --output-on-failure
else
  build asan fast_tests
  ctest --preset asan -j "$jobs" -L fast
fi

step "fuzz targets, 30 s each"
if [[ $full -eq 0 ]]; then build clang fuzz_targets; fi
fuzz

if [[ $full -eq 1 ]]; then
  step "many requests out of the server's own document"
  LORIKEET_SCHEMATHESIS_EXAMPLES=200 build/release/bin/http_test --gtest_filter=Http.AnswersAsItsOwnDocumentSays
  step "answers of 300 schemas, a longer partition"
  LORIKEET_FULL=1 ctest --preset release -R 'StructuredTest.GivesOpenAisClient|ClusterPartitions.Of' --output-on-failure
  step "JSON Schema's own test suite"
  build/venv/bin/python tests/schema_suite.py build/release/bin/grammar_tool
  if [[ -x build/release/bin/cuda_ranks_test ]] && command -v nvidia-cuda-mps-control > /dev/null && nvidia-smi > /dev/null 2>&1; then
    step "two engines on one GPU for a minute"
    tests/gpu.sh engines
  fi
  step "thread sanitizer"
  ctest --preset tsan -j "$jobs" -L tsan
  if command -v nvcc > /dev/null; then
    step "CUDA for every architecture"
    cmake --preset release -B build/all-arch -DLORIKEET_CUDA_ARCHITECTURES='80;86;89;90a' > build/all-arch.configure.log
    cmake --build build/all-arch -j "$jobs" --target lorikeet_kernels_cuda
  fi
fi
step "all passed"

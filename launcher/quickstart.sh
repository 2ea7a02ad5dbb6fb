#!/usr/bin/env bash
# From a fresh machine to answers: installs what is missing, builds, serves the example model cut over two ranks, and
# sends four prompts at once, each through another adapter. The CUDA kernels are built where a GPU is found, or with --cuda;
# structured outputs with --grammar, whose library takes two minutes more, once.
set -euo pipefail
cd "$(dirname "$0")/.."

cuda=OFF
dependencies=()
if command -v nvidia-smi > /dev/null && nvidia-smi -L 2> /dev/null | grep -q GPU; then cuda=ON; fi
for argument in "$@"; do
  case "$argument" in
    --cuda) cuda=ON ;;
    --grammar) dependencies=(--grammar) ;;
    --help|-h) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) echo "quickstart.sh: unknown argument '$argument' (try --help)" >&2; exit 2 ;;
  esac
done

# CUDA architectures of the cards that are here, by their compute capability; newer ones compile PTX when they start.
architectures=()
if [[ $cuda = ON ]] && capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | sort -u); then
  for capability in $capabilities; do
    case "$capability" in
      9.0) architectures+=(90a) ;;
      8.0|8.6|8.9) architectures+=("${capability/./}") ;;
      [0-7].*) echo "a card of compute capability $capability is not used: 8.0 and newer are" ;;
      *) architectures+=(80-virtual) ;;
    esac
  done
  [[ ${#architectures[@]} -gt 0 ]] || cuda=OFF
fi

echo "== dependencies"
./launcher/install_dependencies.sh "${dependencies[@]}"
echo "== build, CUDA kernels $cuda (about four minutes on two idle cores the first time)"
mkdir -p build
export CCACHE_DIR="${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/lorikeet/ccache}" CCACHE_BASEDIR="${CCACHE_BASEDIR:-$PWD}"
# Depend mode: in a first build, where nothing is found in the cache, the preprocessor is not run for the cache alone.
export CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_DEPEND=1
cmake --preset quickstart -DLORIKEET_CUDA=$cuda -DLORIKEET_CUDA_ARCHITECTURES="$(IFS=';'; echo "${architectures[*]:-90a}")" > build/quickstart.log || { cat build/quickstart.log; exit 1; }
grep -o 'grammars are off.*' build/quickstart.log || true
# Twice: g++ now and then finds the address of a precompiled header taken ("PCH allocation failure").
cmake --build --preset quickstart --target lorikeet -j "$(nproc)" || cmake --build --preset quickstart --target lorikeet -j "$(nproc)"

lorikeet=build/quickstart/bin/lorikeet
models=examples/models
scratch=$(mktemp -d)
server=0
stop_server() {
  if [[ $server -ne 0 ]] && kill -TERM "$server" 2> /dev/null; then wait "$server" || true; fi
  rm -rf "$scratch"
}
trap stop_server EXIT

echo
echo "== lorikeet serve --model $models/tiny-qwen2-gptq-int4 --tensor-parallel-size 2 --lora-modules ..."
"$lorikeet" serve --model $models/tiny-qwen2-gptq-int4 --tensor-parallel-size 2 --zmq "ipc://$scratch/zmq" --port 0 --device cpu \
  --lora-modules shakespeare=$models/adapters/shakespeare kjv=$models/adapters/kjv moby=$models/adapters/moby \
  > "$scratch/out" 2> "$scratch/err" &
server=$!
until grep -q '^serving ' "$scratch/out"; do
  kill -0 "$server" 2> /dev/null || { cat "$scratch/err"; echo "the server did not start"; exit 1; }
  sleep 0.1
done
cat "$scratch/err" "$scratch/out"

echo
echo "== a chat over HTTP, as OpenAI's clients ask: the adapter is the model's name"
url=$(sed -n 's/^OpenAI API at //p' "$scratch/err")
curl -sS "$url/chat/completions" -H 'Content-Type: application/json' \
  -d '{"model": "moby", "messages": [{"role": "user", "content": "Where to?"}], "max_tokens": 40, "seed": 7}'
echo

echo
echo "== four prompts at once, over ZeroMQ: the base model and three adapters in one batch"
"$lorikeet" submit --zmq "ipc://$scratch/zmq" --max-tokens 60 --seed 7 \
  --adapter - --adapter shakespeare --adapter kjv --adapter moby \
  "It was a cold morning, and" "What say you, my lord?" "And it came to pass" "The whale rose, and the captain"

echo
echo "== lorikeet status"
"$lorikeet" status --zmq "ipc://$scratch/zmq"

echo
echo "== clean shutdown"
kill -TERM "$server"
wait "$server"
server=0
echo "done. Start your own: $lorikeet serve --help"

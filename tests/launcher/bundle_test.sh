#!/usr/bin/env bash
# Installs the build tree given as the argument, moves what came of it, and runs it there, without LD_LIBRARY_PATH: the
# version, a batch over an adapter, and a look at where every shared library is found.
set -euo pipefail

build=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset LD_LIBRARY_PATH

cmake --install "$build" --prefix "$scratch/installed" > "$scratch/install.log" || { tail -20 "$scratch/install.log"; exit 1; }
mkdir "$scratch/elsewhere"
mv "$scratch/installed" "$scratch/elsewhere/lorikeet"
bundle=$scratch/elsewhere/lorikeet
lorikeet=$bundle/bin/lorikeet

"$lorikeet" --version

# Libraries: the program's and, since a library may bring its own path, those of every bundled one.
system='^(linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|resolv|util)\.so|libcuda\.so|libnvidia|libcudart\.so|libcublas)'
failed=0
while read -r name arrow path _; do
  [[ $arrow == '=>' ]] || continue
  [[ $name =~ $system ]] && continue
  if [[ $(readlink -f "$path" 2>/dev/null) != "$(readlink -f "$bundle")"/lib/* ]]; then
    echo "$name is found at '$path', outside of the bundle"
    failed=1
  fi
done < <(ldd "$lorikeet")
[[ $failed -eq 0 ]]
[[ $(ldd "$lorikeet" | grep -c "$bundle/") -gt 5 ]] || { echo "ldd shows hardly anything in the bundle"; exit 1; }

# A batch: its model and adapter are the bundle's own.
examples=$bundle/share/lorikeet/examples/models
cat > "$scratch/requests.jsonl" <<'REQUESTS'
{"id": "base", "prompt": "The king", "max_tokens": 8, "temperature": 0}
{"id": "adapter", "prompt": "The king", "adapter": "moby", "max_tokens": 8, "temperature": 0}
REQUESTS
"$lorikeet" batch --model "$examples/tiny-qwen2-gptq-int4" --lora-modules "moby=$examples/adapters/moby" --device cpu \
  --tensor-parallel-size 2 --input "$scratch/requests.jsonl" --output "$scratch/results.jsonl"
[[ $(grep -c '"error":null' "$scratch/results.jsonl") -eq 2 ]] || { cat "$scratch/results.jsonl"; exit 1; }

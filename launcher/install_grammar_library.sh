#!/usr/bin/env bash
# Builds XGrammar, which constrains answers to schemas and grammars, from its source distribution on PyPI: once for each
# version, outside of the repository, so that every clone and build folder finds it (cmake/Dependencies.cmake looks there).
# Takes about two minutes of one core. Nothing else depends on it: without it the build says that grammars are off.
set -euo pipefail

version=0.2.9
sha256=87b466bca2475e29bb0323abc62c6c33cbcbcff47e5fb800a3e2099ac9620b90
target="${LORIKEET_XGRAMMAR_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lorikeet/xgrammar-$version}"

if [[ -e "$target/lib/libxgrammar.a" ]]; then exit 0; fi
echo "building XGrammar $version into $target (about two minutes of one core)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
/usr/bin/python3 -m venv "$scratch/venv"
# What pip wants to see of a source distribution needs its build system.
"$scratch/venv/bin/pip" install -q --disable-pip-version-check scikit-build-core setuptools_scm apache-tvm-ffi
echo "xgrammar==$version --hash=sha256:$sha256" > "$scratch/requirements.txt"
"$scratch/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-build-isolation --no-binary xgrammar \
  --require-hashes -r "$scratch/requirements.txt" -d "$scratch"
tar -xzf "$scratch/xgrammar-$version.tar.gz" -C "$scratch"
source="$scratch/xgrammar-$version"
mkdir "$scratch/build"
echo 'set(XGRAMMAR_BUILD_PYTHON_BINDINGS OFF)' > "$scratch/build/config.cmake"
# Objects of link-time optimisation would tie every clone to one version of one compiler.
cmake -S "$source" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="-fno-lto -Wno-error" > "$scratch/log" || { cat "$scratch/log"; exit 1; }
cmake --build "$scratch/build" --target xgrammar -j "${LORIKEET_JOBS:-$(nproc)}" >> "$scratch/log" || { tail -50 "$scratch/log"; exit 1; }
# In one move, so that a build that ends early leaves nothing that looks whole.
mkdir -p "$scratch/whole/lib" "$(dirname "$target")"
cp -r "$source/include" "$source/LICENSE" "$scratch/whole/"
cp -r "$source/3rdparty/dlpack/include/dlpack" "$scratch/whole/include/"
strip --strip-debug -o "$scratch/whole/lib/libxgrammar.a" "$(find "$scratch/build" -name libxgrammar.a)"
rm -rf "$target"
mv "$scratch/whole" "$target"

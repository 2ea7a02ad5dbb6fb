#!/usr/bin/env bash
# Installs the Debian packages that Lorikeet builds with, where they are missing. Needs root (or sudo) only if something is.
# With --tests also what the tests need, and the Python packages of tests/requirements.txt into build/venv. With --tests or
# --grammar also the library for grammars, built from PyPI's source outside of the repository (about two minutes, once).
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache lld pkg-config git python3 curl
  libcaf-dev libzmq3-dev cppzmq-dev libcereal-dev libgloo-dev libexpected-dev libgoogle-glog-dev
  libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libpcre2-dev libutf8proc-dev libssl-dev
  libboost-dev prometheus-cpp-dev libyaml-cpp-dev libedit-dev
  libgtest-dev libgmock-dev libbenchmark-dev libopenblas-dev
)
# The tests also check formatting, run the fuzz targets, speak the JSON protocol from another language, press the live
# page's buttons, and let shells complete.
if [[ "${1:-}" == "--tests" ]]; then
  packages+=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev python3-zmq python3-jinja2 python3-venv openssl procps iproute2
    prometheus chromium zsh fish man-db systemd)
fi

if [[ "${1:-}" == "--grammar" ]]; then packages+=(python3-venv); fi

missing=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  if ! command -v apt-get > /dev/null; then
    echo "install_dependencies.sh: this host has no apt-get; Lorikeet needs what these packages of Debian 12 hold: ${missing[*]}" >&2
    exit 1
  fi
  sudo=""
  if [[ $EUID -ne 0 ]]; then
    command -v sudo > /dev/null || { echo "install_dependencies.sh: these packages are missing, and there is no sudo to install them: ${missing[*]}" >&2; exit 1; }
    sudo="sudo"
  fi
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

if [[ "${1:-}" == "--grammar" || "${1:-}" == "--tests" ]]; then
  "$(dirname "$0")/install_grammar_library.sh"
fi

if [[ "${1:-}" == "--tests" ]]; then
  cd "$(dirname "$0")/.."
  if ! cmp -s tests/requirements.txt build/venv/installed.txt; then
    echo "installing into build/venv: $(tr '\n' ' ' < tests/requirements.txt)"
    /usr/bin/python3 -m venv --clear build/venv
    build/venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt build/venv/installed.txt
  fi
fi

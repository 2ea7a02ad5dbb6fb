#!/usr/bin/env bash
# Builds the CPU's kernels and their tests for 64-bit ARM and runs them under emulation: with NEON on a CPU with DotProd and on
# one without, and without vectors. Needs Debian's g++-12-aarch64-linux-gnu and qemu-user-static; fetches ARM's libraries into
# build/aarch64, and installs nothing. Speed under emulation says nothing about a machine's.
set -euo pipefail
cd "$(dirname "$0")/../.."

for program in aarch64-linux-gnu-g++-12 qemu-aarch64-static; do
  command -v "$program" > /dev/null ||
    { echo "tests/kernels/aarch64.sh: no $program here (apt-get install g++-12-aarch64-linux-gnu qemu-user-static)" >&2; exit 1; }
done

fetch_libraries() { # FOLDER: unpacks what the kernels and their tests link to, by an apt of its own
  local apt=build/aarch64/apt
  mkdir -p $apt/state/lists/partial $apt/cache/archives/partial $apt/packages
  : > $apt/status
  cat > $apt/apt.conf << END
Dir::State "$PWD/$apt/state";
Dir::State::status "$PWD/$apt/status";
Dir::Cache "$PWD/$apt/cache";
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "";
Acquire::Languages "none";
END
  export APT_CONFIG=$PWD/$apt/apt.conf
  apt-get update -qq
  (cd $apt/packages && apt-get download -qq libfmt-dev libfmt9 libgtest-dev libgmock-dev libgoogle-glog-dev libgoogle-glog0v6 \
    libgflags-dev libgflags2.2 libunwind-dev libunwind8 liblzma-dev liblzma5)
  rm -rf "$1.part"
  for package in $apt/packages/*.deb; do dpkg -x "$package" "$1.part"; done
  mv "$1.part" "$1"
}
root=$PWD/build/aarch64/root
[[ -d $root ]] || fetch_libraries "$root"

configure() { # FLAGS...
  cmake -S . -B build/aarch64 "$@" > build/aarch64/configure.log || { cat build/aarch64/configure.log; exit 1; }
}
configure -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE=cmake/Aarch64.cmake -DLORIKEET_AARCH64_ROOT="$root" \
  -DLORIKEET_ONLY_KERNELS=ON
for run in "max " "cortex-a53 " "max plain"; do
  read -r cpu isa <<< "$run"
  configure -DLORIKEET_CPU_ISA="$isa"
  cmake --build build/aarch64 -j "$(nproc)"
  echo "CPU '$cpu'${isa:+, LORIKEET_CPU_ISA=$isa}:"
  QEMU_CPU=$cpu ctest --test-dir build/aarch64 -j "$(nproc)" --output-on-failure | tail -8
done

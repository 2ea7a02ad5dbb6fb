#!/usr/bin/env bash
# sanitize.py goes on where its last slice stopped, repeats what failed, names what takes longer than a slice, and lets tests
# share a process as long as none of them fails: with a tool and tests that compute nothing.
set -uo pipefail
script=$(cd "$(dirname "$0")" && pwd)/sanitize.py
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin"
mkfifo "$dir/never"
cat > "$dir/bin/a_cuda_test" <<'T'
#!/usr/bin/env bash
if [[ $1 == --gtest_list_tests ]]; then printf 'A.\n  One\n  Two/0  # GetParam() = 3\n  Other\n'; exit; fi
here=$(dirname "$0")/..
echo "${2#--gtest_filter=}" >> "$here/ran"
if [[ $2 == *:* ]]; then  # several
  for name in $(tr ':' ' ' <<< "${2#--gtest_filter=}"); do
    [[ $name == *Two/0 && $(cat "$here/status") != 0 ]] && exit "$(cat "$here/status")"
    if [[ $name == *Other ]]; then kind=' SKIPPED '; else kind='      OK '; fi
    echo "[ $kind] $name (1500 ms)"
  done
  exit 0
fi
case $2 in
  *Two/0) exit "$(cat "$here/status")" ;;
  *Other) if [[ -e $here/hangs ]]; then cat "$here/never"; else echo '[  SKIPPED ] A.Other'; fi ;;
esac
T
cat > "$dir/compute-sanitizer" <<'T'
#!/usr/bin/env bash
shift 6
"$@"
T
chmod +x "$dir/bin/a_cuda_test" "$dir/compute-sanitizer"

failed=0
together=1
expect() { # STATUS LAST_LINE RAN ARGUMENTS...
  local status=$1 line=$2 ran=$3 output got
  shift 3
  : > "$dir/ran"
  output=$(PATH="$dir:$PATH" "$script" "$@" --jobs 1 --together "$together")
  got=$?
  if [[ $got != "$status" || $output != *"$line"* || $(paste -sd' ' "$dir/ran") != "$ran" ]]; then
    printf 'expected %s, "%s", runs of %s; got %s, runs of %s:\n%s\n' \
      "$status" "$line" "$ran" "$got" "$(paste -sd' ' "$dir/ran")" "$output"
    failed=1
  fi
}

echo 5 > "$dir/status"
expect 1 "Two/0: ended with 5" "A.One A.Two/0 A.Other" memcheck "$dir/bin" "$dir/state"
echo 0 > "$dir/status"
expect 0 "2 of 3 tests have passed, 1 skipped, 0 failed" "A.Two/0" memcheck "$dir/bin" "$dir/state"
expect 0 "2 of 3 tests have passed, 1 skipped, 0 failed" "" memcheck "$dir/bin" "$dir/state"
touch "$dir/hangs"
# A slice without time begins no test; one that a test does not fit into says so, and the next one tries again.
expect 2 "0 of 3 tests have passed, 0 skipped, 0 failed" "" racecheck "$dir/bin" "$dir/state" --seconds 0
expect 1 "Other: not done after" "A.Other" racecheck "$dir/bin" "$dir/state" --seconds 1 --only Other
rm "$dir/hangs"
expect 0 "0 of 1 tests have passed, 1 skipped, 0 failed" "A.Other" racecheck "$dir/bin" "$dir/state" --only Other
sed "s/'A[.]/'DrawsOverPeers./" "$dir/bin/a_cuda_test" > "$dir/bin/b_cuda_test"  # kernels that wait for each other
chmod +x "$dir/bin/b_cuda_test"
expect 1 "" "" racecheck "$dir/bin" "$dir/state" --only b_cuda
expect 0 "2 of 3 tests have passed, 1 skipped" "DrawsOverPeers.One DrawsOverPeers.Two/0 DrawsOverPeers.Other" memcheck "$dir/bin" "$dir/state" --only b_cuda
rm "$dir/bin/b_cuda_test"
cat > "$dir/bin/c_cuda_test" <<'T'
#!/usr/bin/env bash
if [[ $1 == --gtest_list_tests ]]; then printf 'C.\n  OfTheHost\n'; exit; fi
printf '[  PASSED  ] 1 test.\n========= Error: Target application terminated before first instrumented API call\n'
exit 255
T
chmod +x "$dir/bin/c_cuda_test"
expect 0 "0 of 1 tests have passed, 1 skipped" "" memcheck "$dir/bin" "$dir/state" --only c_cuda
rm "$dir/bin/c_cuda_test"
# What fails under the multi-process service may have been ended by another: it counts what it says outside.
cat > "$dir/bin/d_cuda_test" <<'T'
#!/usr/bin/env bash
if [[ $1 == --gtest_list_tests ]]; then printf 'D.\n  One\n'; exit; fi
echo "${CUDA_MPS_PIPE_DIRECTORY:-outside}" >> "$(dirname "$0")/../ran"
[[ -z ${CUDA_MPS_PIPE_DIRECTORY:-} ]]
T
chmod +x "$dir/bin/d_cuda_test"
export CUDA_MPS_PIPE_DIRECTORY=service
expect 0 "1 of 1 tests have passed" "service outside" memcheck "$dir/bin" "$dir/state" --only d_cuda
unset CUDA_MPS_PIPE_DIRECTORY
rm "$dir/bin/d_cuda_test"
echo "#" >> "$dir/bin/a_cuda_test"  # another executable: nothing is known of it
expect 0 "2 of 3 tests have passed" "A.One A.Two/0 A.Other" memcheck "$dir/bin" "$dir/state"
# Together: one process for all, and each alone where one has failed.
together=3
echo "##" >> "$dir/bin/a_cuda_test"
expect 0 "2 of 3 tests have passed, 1 skipped" "A.One:A.Two/0:A.Other" memcheck "$dir/bin" "$dir/state"
[[ $(grep -c 'A.One ended 1.5 0' "$dir/state") == 1 ]] || { echo "a test has not its own time"; failed=1; }
echo "###" >> "$dir/bin/a_cuda_test"
echo 5 > "$dir/status"
expect 1 "Two/0: ended with 5" "A.One:A.Two/0:A.Other A.One A.Two/0 A.Other" memcheck "$dir/bin" "$dir/state"
echo 0 > "$dir/status"
expect 0 "2 of 3 tests have passed, 1 skipped" "A.Two/0" memcheck "$dir/bin" "$dir/state"
exit $failed

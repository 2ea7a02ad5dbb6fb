#!/usr/bin/env bash
# The service as the Debian package brings it, without a package: systemd's own judgement of the unit, then what the unit
# starts, with the packaged configuration, answers and ends in order.
#   service_test.sh BINARY_DIRECTORY
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
lorikeet=$1/lorikeet
scratch=$(mktemp -d)
server=0
clean() {
  if [[ $server -ne 0 ]]; then kill -KILL "$server" 2> /dev/null || true; fi
  rm -rf "$scratch"
}
trap clean EXIT

unit=$root/packaging/lorikeet.service
sed "s|/usr/bin/lorikeet|$lorikeet|" "$unit" > "$scratch/lorikeet.service"
said=$(systemd-analyze verify --man=no "$scratch/lorikeet.service" 2>&1) || { echo "$said"; exit 1; }
[[ -z $said ]] || { echo "systemd-analyze says: $said"; exit 1; }

# The words of ExecStart, with the configuration where this test has it: the example model of the tree, a port of its own.
sed -e "s|/usr/share/lorikeet|$root|" -e "s|ipc:///run/lorikeet/zmq|ipc://$scratch/zmq|" -e 's|^port: .*|port: 0|' \
  "$root/packaging/lorikeet.yaml" > "$scratch/lorikeet.yaml"
read -ra words <<< "$(sed -n 's|^ExecStart=/usr/bin/lorikeet ||p' "$unit" | sed "s|/etc/lorikeet/lorikeet.yaml|$scratch/lorikeet.yaml|")"
[[ ${#words[@]} -eq 3 ]] || { echo "the unit starts: ${words[*]}"; exit 1; }
"$lorikeet" "${words[@]}" > "$scratch/out" 2> "$scratch/err" &
server=$!
for ((i = 0; i < 1200; ++i)); do
  if grep -q '^serving ' "$scratch/out"; then break; fi
  kill -0 "$server" 2> /dev/null || { cat "$scratch/err"; echo "the service does not start"; exit 1; }
  sleep 0.05
done
"$lorikeet" submit --zmq "ipc://$scratch/zmq" --max-tokens 4 "Call me" > "$scratch/answer"
[[ -s $scratch/answer ]] || { echo "the service does not answer"; exit 1; }
kill -TERM "$server"
wait "$server" || { status=$?; cat "$scratch/err"; echo "the service ends with status $status"; exit 1; }
server=0

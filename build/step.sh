#!/usr/bin/env bash
# Runs one step of a target, and prints one line with its name and duration.
#
#   build/step.sh 'compile the filter' build/cargo-wasm.sh build --locked --release --lib
#   build/step.sh --tests 'native tests' build/with-rust.sh cargo test --locked
#
# The command's output goes to target/logs, and its end is printed if the step fails. With --tests, the output is shown,
# and the step fails unless cargo test's or pytest's summary lists a passed test. With V=1 all output is shown.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=
[[ $1 != --tests ]] || { tests=1; shift; }
readonly name=$1 tests
shift
log=target/logs/$(tr --complement --squeeze-repeats 'A-Za-z0-9+.\n-' - <<<"$name").log
mkdir -p target/logs

show=
[[ -z $tests && ${V:-0} == 0 ]] || show=1
# The command writes to tee, not to a terminal.
if [[ $show && -t 1 ]]; then
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always} PY_COLORS=${PY_COLORS:-1}
fi

# Bash writes the time with the locale's decimal point.
now() { echo "${EPOCHREALTIME/,/.}"; }
elapsed() { awk -v from="$start" -v to="$(now)" 'BEGIN { printf "%.1f s", to - from }'; }

number_passed() {
    sed 's/\x1b\[[0-9;]*m//g' "$log" |
        awk '/^test result: |^=+ .* in [0-9.]+s.* =+$/ {
                 for (i = 2; i <= NF; i++) if ($i ~ /^passed[;,]?$/) sum += $(i - 1)
             }
             END { print sum + 0 }'
}

start=$(now)
trap 'echo " interrupted after $(elapsed); see $log"; trap - INT; kill -INT $$' INT
status=0
if [[ $show ]]; then
    echo "== $name"
    # Unbuffered, so that a test's dot appears when the test ends.
    PYTHONUNBUFFERED=1 "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    echo -n "== $name"
else
    echo -n "$name …"
    "$@" >"$log" 2>&1 || status=$?
fi

if ((status)); then
    echo " FAILED after $(elapsed)"
    [[ $show ]] || { echo "The last lines of $log:"; tail --lines=40 "$log"; }
    echo "$name: exit status $status; the whole log: $log" >&2
    exit "$status"
fi
if [[ $tests ]]; then
    passed=$(number_passed)
    ((passed)) || { echo ": FAILED: no test passed; see $log"; exit 1; }
    echo ": $passed passed, $(elapsed)"
else
    echo " $(elapsed)"
fi

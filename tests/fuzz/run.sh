#!/bin/bash
# Runs each fuzz target: run.sh [SECONDS [JOBS [TARGET…]]]. Installs cargo-fuzz if it is missing. Fails if a target does.
# Inputs that were found stay in target/fuzz/corpus for the next time; what fails is kept in target/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-60} jobs=${2:-2}
shift $(($# < 2 ? $# : 2))
export folder="${TARGET:-$PWD/target}/fuzz" seconds
mkdir -p "$folder/log" "$folder/artifacts"

# libFuzzer's hooks are behind an unstable flag of the compiler; for this build alone
export RUSTC_BOOTSTRAP=1
PATH=$folder/bin:$PATH
if ! cargo fuzz --version > /dev/null 2>&1; then
	cargo install cargo-fuzz --locked --quiet --root "$folder"
fi
if [ $# = 0 ]; then
	mapfile -t targets < <(cargo fuzz list --fuzz-dir tests/fuzz)
	set -- "${targets[@]}"
fi
# No sanitizer: unsafe code is in no parser, and without it there are twice as many runs
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir "$folder"
host=$(rustc -vV | sed -n 's/^host: //p')
export programs=$folder/$host/release

# called by xargs
# shellcheck disable=SC2317
run() {
	mkdir -p "$folder/corpus/$1"
	arguments=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1)
	if [ -e "tests/fuzz/dictionaries/$1" ]; then
		arguments+=(-dict="tests/fuzz/dictionaries/$1")
	fi
	"$programs/$1" "${arguments[@]}" -artifact_prefix="$folder/artifacts/$1-" \
		"$folder/corpus/$1" "tests/fuzz/corpus/$1" > "$folder/log/$1" 2>&1 || echo "FAILED $?" >> "$folder/log/$1"
}
export -f run
rm -f "${@/#/$folder/log/}"
printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'run {}'

failed=0
printf '%-16s %12s %9s %9s %9s  %s\n' target runs coverage new 'peak MiB' result
for target in "$@"; do
	log=$folder/log/$target
	stat() { sed -n "s/^stat::$1: *//p" "$log"; }
	coverage() { sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log"; }
	result=ok
	if grep -q '^FAILED' "$log"; then
		result="FAILED, see $log"
		failed=1
	fi
	# from what is there before the first new input to the end
	before=$(sed -n 's/.*INITED *cov: \([0-9]*\) .*/\1/p' "$log") after=$(coverage | tail -1)
	printf '%-16s %12s %9s %9s %9s  %s\n' "$target" "$(stat number_of_executed_units)" "$after" \
		"+$((${after:-0} - ${before:-0}))" "$(stat peak_rss_mb)" "$result"
done
exit $failed

#!/usr/bin/env bash
# VNN-COMP: decides one instance.
#
#     run_instance.sh VERSION CATEGORY ONNX VNNLIB RESULTS TIMEOUT
#
# RESULTS says `timeout` from the start and is replaced as a whole at the end, so that it is right whenever this
# script is killed. Its first line is sat, unsat, timeout, error or unknown; the witness of a sat follows. Exit code
# 0 if RESULTS has lpverify's answer or says that it has none, 1 for wrong arguments, 128 + N after signal N.
started=${EPOCHREALTIME:-0}
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
((${started%%[.,]*})) || started=$(date +%s.%N)
started=${started/,/.}

expect_arguments "VERSION CATEGORY ONNX VNNLIB RESULTS TIMEOUT" "$@"
onnx=$3 vnnlib=$4 results=$5 timeout=$6
[[ $results == /* ]] || results=$PWD/$results
folder=${results%/*} name=${results##*/}
[[ -n $name && -d $folder/ && -w $folder/ ]] || fail "can't write $results: no such folder, or not allowed"
[[ ! -e $results || -f $results ]] || fail "$results is no plain file"
limits=$(arguments limit "$timeout" "$started") || exit 1
read -r limit end <<<"$limits"

draft=$folder/.$name.draft word=$folder/.$name.word note= child= signal=0
clean_up() { rm -f -- "$draft" "$word" ${note:+"$note"}; }
trap clean_up EXIT

# say VERDICT: RESULTS is that line.
say() {
    rm -f -- "$word"
    printf '%s\n' "$1" >"$word"
    mv -f -- "$word" "$results"
}

# interrupted NUMBER: ends lpverify, which then has a moment for its answer; what it has is used, see below.
interrupted() {
    signal=$1
    [[ -n $child ]] || exit $((128 + signal))
    kill -TERM "$child" 2>/dev/null || true
    for _ in {1..20}; do
        kill -0 "$child" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$child" 2>/dev/null || true
}
trap 'interrupted 1' HUP
trap 'interrupted 2' INT
trap 'interrupted 15' TERM

say timeout
words=()
if expect_tool; then
    mapfile -d '' -t words < <(arguments command "$onnx" "$vnnlib")
fi
if ((!${#words[@]})); then
    say error
    exit 1
fi

# `timeout` makes a process group of its own, ends it as a whole, and passes TERM on. The draft is a new file:
# a left-over process may still write to an old one.
rm -f -- "$draft"
has_notes=0
! own_run_folder || has_notes=1
timeout --signal=KILL "$end" "$lpverify" verify "${words[@]}" --timeout "$limit" </dev/null >"$draft" &
child=$!
if ((has_notes)); then
    note=$run_folder/$child
    started_at "$child" >"$note" || true
fi
while :; do
    before=$signal code=0
    wait "$child" || code=$?
    ((signal != before)) || break # else it was a signal that ended the wait
done
trap '' HUP INT TERM

verdict=
IFS= read -r verdict <"$draft" || true
case $code:$verdict in
0:sat | 0:unsat)
    mv -f -- "$draft" "$results"
    exit 0
    ;;
esac
((!signal)) || exit $((128 + signal)) # RESULTS says timeout
case $code:$verdict in
0:timeout | 0:timed-out) ;;
0:unknown | 3:*) say unknown ;;
137:*) (($(date +%s) - ${started%.*} >= ${end%.*})) || say error ;; # killed: at the limit, or for its memory
*) say error ;;
esac

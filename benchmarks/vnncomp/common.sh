# shellcheck shell=bash
# What the three scripts share; sourced by them.

# The competition's machines export SHELLOPTS=xtrace; programs that are bash scripts would get our options as well.
set +x
export -n SHELLOPTS
repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=${LPVERIFY_VENV:-$repository/.vnncomp-venv}
lpverify=${LPVERIFY:-$venv/bin/lpverify}
run_folder=${LPVERIFY_RUN_DIR:-${TMPDIR:-/tmp}/lpverify-vnncomp-$UID}

# complain MESSAGE: fails.
complain() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    return 1
}

# fail MESSAGE: ends the script.
fail() {
    complain "$1" || exit 1
}

# expect_arguments NAMES ARGUMENT...: as many arguments as names, none of them empty, the first a known version.
expect_arguments() {
    local names=$1 argument
    shift
    local -a expected
    read -ra expected <<<"$names"
    (($# == ${#expected[@]})) || fail "expected ${#expected[@]} arguments ($names), got $#"
    for argument; do
        [[ -n $argument ]] || fail "an argument is empty; expected $names"
    done
    [[ $1 == v1 || $1 == v2 ]] || fail "unknown version '$1', expected v1 or v2"
}

# expect_tool: fails if lpverify is not there.
expect_tool() {
    command -v -- "$lpverify" >/dev/null || complain "$lpverify is not there; run install_tool.sh first"
}

# arguments MODE ARGUMENT...: what arguments.py prints, with whichever Python there is.
arguments() {
    local python=$venv/bin/python
    [[ -x $python ]] || python=python3
    "$python" -I -S "$repository/benchmarks/vnncomp/arguments.py" "$@" </dev/null
}

# started_at PID: when a process of this user started, in the kernel's ticks; fails if there is none.
started_at() {
    local stat
    [[ -O /proc/$1 ]] || return 1
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }"
    printf '%s\n' "${stat[19]}"
}

# own_run_folder: makes the folder of notes about running processes; fails if others could write there.
own_run_folder() {
    mkdir -p -m 700 -- "$run_folder" || return 1
    [[ -d $run_folder && ! -L $run_folder && -O $run_folder ]] || complain "$run_folder belongs to someone else"
}

#!/usr/bin/env bash
# VNN-COMP: gets ready for one instance. Ends what earlier instances left running and looks whether the files can
# be read; the instance itself is not looked at.
#
#     prepare_instance.sh VERSION CATEGORY ONNX VNNLIB
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

expect_arguments "VERSION CATEGORY ONNX VNNLIB" "$@"
expect_tool || exit 1

# A note is named after a process group and says when its leader started, so that another process that got the
# same number since is left alone.
own_run_folder || exit 1
for note in "$run_folder"/*; do
    group=${note##*/}
    [[ -f $note && $group =~ ^[1-9][0-9]+$ ]] || continue
    if [[ ! -e /proc/$group || $(started_at "$group" || true) == "$(<"$note")" ]]; then
        kill -KILL -- "-$group" 2>/dev/null || true
    fi
    rm -f -- "$note"
done

arguments check "$3" "$4"

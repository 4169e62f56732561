#!/bin/sh
# Fuzzes both readers, SECONDS each (60): tests/fuzz/run.sh [SECONDS]
cd "$(dirname "$0")/../.." && LPVERIFY_FUZZ_SECONDS="${1:-60}" exec "${PYTHON:-python}" -m pytest -q -s tests/fuzz

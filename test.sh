#!/usr/bin/env bash
# Format, lint, types, layers, tests. With LPVERIFY_BENCHMARKS set, real instances as well.
set -euo pipefail
cd "$(dirname "$0")"
ruff format --check .
ruff check .
mypy
lint-imports
pytest "$@"
if [ -n "${LPVERIFY_BENCHMARKS:-}" ]; then pytest -m bench "$@"; fi

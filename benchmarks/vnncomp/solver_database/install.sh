#!/usr/bin/env bash
set -euo pipefail

pip install lpverify==0.1.0

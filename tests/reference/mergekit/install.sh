#!/bin/sh
# A virtual environment with the mergekit that made the fixtures: sh tests/reference/mergekit/install.sh DIR
set -eu
python3 -m venv "$1"
"$1/bin/pip" install torch==2.13.0 mergekit==0.1.5

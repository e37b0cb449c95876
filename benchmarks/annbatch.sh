#!/bin/bash
# Tests and times the loader with annbatch, which needs Python 3.12 or later:
#
#   bash benchmarks/annbatch.sh python3.13 [arguments of loader.py]
#
# In an environment of its own, made with constraints.txt, unless this Python has all of it already.
# annbatch.md beside this file holds what came out.
set -euo pipefail
python=${1:-python3.13}
cd "$(dirname "$0")/../.."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 12) and "annbatch needs Python 3.12")'
if ! "$python" -c 'import annbatch, hypothesis, pytest, splicedvae, zarrs' 2>/dev/null; then
    venv=$(mktemp -d)
    trap 'rm -rf "$venv"' EXIT
    "$python" -m venv "$venv"
    python=$venv/bin/python
    "$python" -m pip install --quiet -c constraints.txt -e '.[atlas,test]'
fi
export OMP_NUM_THREADS=1
"$python" -m pytest -q tests/test_atlas_loader.py
"$python" benchmarks/loader.py --engine annbatch "${@:2}"

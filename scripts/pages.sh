#!/bin/sh
# Make the pages of docs/ and the tables of the README that come from committed runs anew: scripts/pages.sh [PYTHON]
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
"$python" -m studies.pages

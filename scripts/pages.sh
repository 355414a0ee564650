#!/bin/sh
# Make the pages of docs/ and the tables of the README that come from committed runs anew: scripts/pages.sh [PYTHON]
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
"$python" -m studies.reproduction page docs/results --out docs/reproduction.md --readme README.md
"$python" -m studies.eight_page docs/results/eight-tasks --out docs/results --readme README.md

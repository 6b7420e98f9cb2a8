#!/bin/sh
# Build the wheel into dist/, install it in an empty environment outside the checkout,
# and run the demo check there.
set -eu
pip="--disable-pip-version-check -q"
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
trap 'exit 130' INT TERM

echo "dist: building the wheel"
rm -rf dist
"$BIN/python" -m pip $pip wheel --no-deps -w dist .
wheel=$(ls "$PWD"/dist/shortlist-*.whl)

echo "dist: installing $(basename "$wheel") in an empty environment"
"$BIN/python" -m venv "$outside/venv"
"$outside/venv/bin/python" -m pip $pip install "$wheel[jax,serve]"

cd "$outside"
"$outside/venv/bin/shortlist" demo --check --json demo.json
echo "dist: the demo check passed"

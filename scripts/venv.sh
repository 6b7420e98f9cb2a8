#!/bin/sh
# Makes the virtual environment $1 with $PYTHON, or keeps one of that version.
set -eu
venv=$1

fail() {
  echo "make: $1" >&2
  exit 1
}

version_of() {
  "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || true
}

wanted=$(version_of "$PYTHON")
case $wanted in
  3.11.* | 3.12.* | 3.13.*) ;;
  "") fail "$PYTHON was not found. Install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3." ;;
  *) fail "Python 3.11 to 3.13 is needed, $PYTHON is $wanted. Name another one: make PYTHON=/path/to/python3." ;;
esac
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$PYTHON has no venv module. Install it (on Debian: apt install python3-venv) and run make again."

# The names CMake tries, after the one the user chose.
compiler=
for name in "${CXX:-}" c++ g++ clang++; do
  if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then
    compiler=$name
    break
  fi
done
[ -n "$compiler" ] ||
  echo "install: no C++ compiler found, so Shortlist will run on NumPy, slower. Install one, then: make clean."

if [ "$(version_of "$venv/bin/python")" != "$wanted" ]; then
  echo "install: $venv with Python $wanted"
  rm -rf "$venv"
  "$PYTHON" -m venv "$venv"
fi

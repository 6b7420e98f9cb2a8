#!/bin/sh
# Create the virtual environment $1 with $PYTHON, unless it has that version already.
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
  "") fail "$PYTHON was not found. Install Python 3.11 to 3.13, or choose one: make PYTHON=/path/to/python3." ;;
  *) fail "Python 3.11 to 3.13 is required; $PYTHON is $wanted. Choose another one: make PYTHON=/path/to/python3." ;;
esac
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$PYTHON has no venv module. Install it (on Debian: apt install python3-venv) and run make again."

# The names that CMake tries, after the one in CXX.
compiler=
for name in "${CXX:-}" c++ g++ clang++; do
  if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then
    compiler=$name
    break
  fi
done
[ -n "$compiler" ] ||
  echo "install: no C++ compiler was found, so Shortlist will use NumPy, which is slower. To change that, install a compiler and run make clean."

if [ "$(version_of "$venv/bin/python")" != "$wanted" ]; then
  echo "install: creating $venv with Python $wanted"
  rm -rf "$venv"
  "$PYTHON" -m venv "$venv"
fi

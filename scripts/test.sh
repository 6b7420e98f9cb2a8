#!/bin/sh
# Runs every suite once, then those marked `backend` again under each other backend
# that is installed: Keras takes one backend per process. Arguments go to pytest.
set -u
status=0
"$BIN/python" -m pytest --backend jax "$@" || status=1
for backend in tensorflow torch; do
  if "$BIN/python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('$backend'))"; then
    echo "test: the backend suites under $backend"
    "$BIN/python" -m pytest --backend "$backend" -m backend "$@" || status=1
  fi
done
exit $status

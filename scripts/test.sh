#!/bin/sh
# Run every test under JAX, and those marked `backend` again under each other installed
# backend, because Keras supports one backend per process. The other backends run in the
# background, because one run uses about one processor; their output is printed last.
# Arguments are passed to pytest.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT

others() {
  failed=0
  for backend in tensorflow torch; do
    if "$BIN/python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('$backend'))"; then
      echo "test: running the backend tests under $backend"
      "$BIN/python" -m pytest --backend "$backend" -m backend "$@" &
      suite=$!
      trap 'kill $suite; exit 143' TERM
      wait $suite || failed=1
    fi
  done
  return $failed
}

status=0
others "$@" >"$log" 2>&1 &
beside=$!
trap 'kill $beside; exit 130' INT TERM
"$BIN/python" -m pytest --backend jax "$@" || status=1
wait $beside || status=1
cat "$log"
exit $status

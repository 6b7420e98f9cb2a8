#!/bin/sh
# Runs every suite once, and those marked `backend` again under each other backend that
# is installed: Keras takes one backend per process. The others run beside the first, as
# a suite keeps about one processor busy; what they print comes after it. Arguments go to
# pytest.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT

others() {
  failed=0
  for backend in tensorflow torch; do
    if "$BIN/python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('$backend'))"; then
      echo "test: the backend suites under $backend"
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

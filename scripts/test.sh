#!/bin/sh
# Runs the tests under JAX, then those marked `backend` again under each other backend
# that is installed: Keras takes one backend per process. pytest-xdist spreads each suite
# over the processors; a worker needs 2 to 4 GB of memory, so there are at most four.
#
# The first argument is `fast` or `all`. `fast` leaves out the tests marked `slow`, and
# XLA optimizes less: most of the time of the others is its compiler's. Further arguments
# go to pytest.
set -u
case $1 in
  fast)
    jax='not slow' others='backend and not slow'
    export JAX_DISABLE_MOST_OPTIMIZATIONS=1
    ;;
  all) jax='' others='backend' ;;
  *) echo "test: the first argument must be fast or all, got $1" >&2 && exit 2 ;;
esac
shift
trap 'exit 130' INT
trap 'exit 143' TERM

workers=$("$BIN/python" -c '
from shortlist.processors import usable_processors
print(min(usable_processors(), 4))')

suite() {
  backend=$1 tests=$2
  shift 2
  echo "test: the suite under $backend, $workers at a time"
  "$BIN/python" -m pytest -n "$workers" --dist worksteal --backend "$backend" \
    -m "$tests" "$@"
}

status=0
suite jax "$jax" "$@" || status=1
for backend in tensorflow torch; do
  if "$BIN/python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('$backend'))"; then
    suite "$backend" "$others" "$@" || status=1
  fi
done
exit $status

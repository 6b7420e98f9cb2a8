#!/bin/sh
# Builds the kernels without Python under the sanitizers and runs them. CXX chooses the
# compiler. Succeeds if no sanitizer and no check has anything to say.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-g++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sources="native/bag_entries.cc native/bag_lookup.cc native/dot_tile.cc
  native/row_groups.cc native/row_kernels.cc native/row_update.cc native/top_k.cc"
status=0
for sanitizers in address,undefined thread; do
  echo "sanitize: building with -fsanitize=$sanitizers"
  # shellcheck disable=SC2086 # the list of sources is meant to split
  "$compiler" -std=c++17 -O1 -g -fno-omit-frame-pointer \
    -fsanitize=$sanitizers -fno-sanitize-recover=all \
    $sources native/tests/embedding_kernels_test.cc -pthread -o "$folder/kernels"
  echo "sanitize: running"
  if "$folder/kernels"; then
    echo "sanitize: $sanitizers is clean"
  else
    echo "sanitize: $sanitizers found something" >&2
    status=1
  fi
done
exit $status

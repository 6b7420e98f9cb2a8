#!/bin/sh
# Build the kernels without Python under the sanitizers and run their tests. CXX
# selects the compiler. Succeeds if all tests pass and no sanitizer reports an error.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-g++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0
for sanitizers in address,undefined thread; do
  flags="-std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=$sanitizers
    -fno-sanitize-recover=all"
  echo "sanitize: building with -fsanitize=$sanitizers"
  rm -f "$folder"/*
  for source in native/*.cc; do
    case $source in *bindings.cc) continue ;; esac
    # shellcheck disable=SC2086 # the flags must be split
    "$compiler" $flags -c "$source" -o "$folder/$(basename "$source" .cc).o"
  done
  for test in native/tests/*_test.cc; do
    name=$(basename "$test" .cc)
    # shellcheck disable=SC2086
    "$compiler" $flags "$test" "$folder"/*.o -pthread -o "$folder/$name"
    echo "sanitize: running $name"
    if "$folder/$name"; then
      echo "sanitize: $name passed under $sanitizers"
    else
      echo "sanitize: $name failed under $sanitizers" >&2
      status=1
    fi
  done
done
exit $status

# Sourced by the `build` of a Go product: build its binary once, keep it outside the checkout, print the binary's path.
#
# With `--only-if-built` nothing is built: exit code 1 where there is no binary yet.
# The sourcing script sets `name`, `version`, `takes` (how long, in words), `limit_s` and `needs` (commands that must be
# there), and defines `build`, which leaves the binary at "$work/$name".  `variant`, if set, tells apart binaries of one
# version that are built of other parts.
# shellcheck shell=bash disable=SC2154
cache="${XDG_CACHE_HOME:-$HOME/.cache}/connected-testbed/$name-$version${variant:+-$variant}"

finish_if_built() {
  if [ -x "$cache/$name" ]; then
    echo "$cache/$name"
    exit 0
  fi
}

finish_if_built
[ "${1:-}" != --only-if-built ] || exit 1
for tool in "${needs[@]}"; do
  if ! command -v "$tool" >/dev/null; then
    echo "$name: cannot be built, '$tool' is missing (tests/services/install names the package)" >&2
    exit 1
  fi
done

mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
  echo "$name: another build is running, waiting for it" >&2
  flock --timeout "$limit_s" 9
fi
finish_if_built

rm -rf "$cache"/build.* # what a killed build left
work=$(mktemp -d "$cache/build.XXXXXX")
builder=
trap '[ -z "$builder" ] || kill -- "-$builder" 2>/dev/null || true; rm -rf "$work"' EXIT

echo "$name: building $version once, $takes; kept in $cache" >&2
set -m # a process group of its own, which an interrupt ends as a whole
build >"$work/log" 2>&1 9>&- &
builder=$!
set +m
while kill -0 "$builder" 2>/dev/null; do
  sleep 2
  ((SECONDS / 30 == ${said:-0})) || { said=$((SECONDS / 30)); echo "$name: still building, $SECONDS s" >&2; }
done
if ! wait "$builder"; then
  tail -n 40 "$work/log" >&2
  echo "$name: the build failed after $SECONDS s" >&2
  exit 1
fi
mv "$work/$name" "$cache/$name"
echo "$cache/$name"

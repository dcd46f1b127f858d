#!/usr/bin/env bash
# package_test.sh BUILD_FOLDER SOURCE_FOLDER
# The installed package as a user meets it: `cmake --install` to a new prefix, examples/ built against it by
# find_package(necrocode), its program run against the installed binary's services. Stops only what it started.
set -euo pipefail
build=$1
source=$2

work=$(mktemp -d)
started=()
finish() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || continue; wait "$pid" || true; done
  rm -rf "$work"
}
trap finish EXIT
fail() { echo "package_test: $*" >&2; exit 1; }

# Nothing of the caller's configuration, and no proxy before loopback.
export HOME=$work/home GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
mkdir -p "$HOME"
unset NECROCODE_CONFIG OPENAI_API_KEY LLM_API_KEY TASK_REGISTRY_URL REPO_POOL_URL ARTIFACT_STORE_URL
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY

prefix=$work/prefix
cmake --install "$build" --prefix "$prefix" >"$work/install.log" 2>&1 ||
  fail "cmake --install: $(tail -n 5 "$work/install.log")"
for file in bin/necrocode include/necrocode/agent_runner.hpp share/doc/necrocode/LICENSE share/doc/necrocode/README.md; do
  [ -e "$prefix/$file" ] || fail "$file was not installed"
done
# The library is the four clients: a server's or a database's header has no place in it.
if find "$prefix/include" -name 'http_server.hpp' -o -name 'service.hpp' -o -name 'sqlite*' | grep .; then
  fail "the headers above are not the clients'"
fi
if ldd "$prefix/bin/necrocode" | grep 'not found'; then fail "the installed binary lacks the libraries above"; fi

cmake -S "$source/examples" -B "$work/examples" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  >"$work/configure.log" 2>&1 || fail "examples do not configure: $(cat "$work/configure.log")"
cmake --build "$work/examples" >"$work/build.log" 2>&1 || fail "examples do not build: $(tail -n 30 "$work/build.log")"
if ldd "$work/examples/clients" | grep sqlite; then fail "a program that uses the clients links a database"; fi

cat >"$work/repository.sh" <<'END'
git init -q --bare -b main "$1/remote.git"
git init -q -b main "$1/seed"
cd "$1/seed"
echo hello >README
git add README
git -c user.name=test -c user.email=test@localhost commit -q -m "A file"
git push -q "$1/remote.git" main
END
bash -eu "$work/repository.sh" "$work"

# start NAME COMMAND...: waits for its ready line; the URL is then in $url.
start() {
  local name=$1 line
  shift
  mkfifo "$work/$name.out"
  "$@" >"$work/$name.out" 2>"$work/$name.err" &
  started+=($!)
  exec {out}<"$work/$name.out"
  IFS= read -r -t 30 line <&"$out" || fail "$name did not become ready: $(cat "$work/$name.err")"
  url=$(sed -n 's/.*"event":"ready".*"url":"\([^"]*\)".*/\1/p' <<<"$line")
  [ -n "$url" ] || fail "$name: not a ready line: $line"
}
start services "$prefix/bin/necrocode" serve --listen 127.0.0.1:0 --data "$work/data"
services=$url
start model "$prefix/bin/necrocode" llm serve-replay "$source/examples/clients-cassette.json" --listen 127.0.0.1:0
model=$url

"$work/examples/clients" "$services" "$model/v1" "file://$work/remote.git" >"$work/clients.out" 2>"$work/clients.err" ||
  fail "clients ended with $?: $(cat "$work/clients.err")"
for line in '^registry   example:1.1 is running, with [1-9][0-9]* events$' '^llm        said "hello" for [1-9][0-9]* tokens$' \
  '^llm        wants to create hello.txt$' '^artifacts  14 bytes came back unchanged$' \
  '^pool       .* is at [0-9a-f]\{12\}$' '^registry   example:1.1 is done$'; do
  grep -q "$line" "$work/clients.out" || fail "clients did not print $line, but: $(cat "$work/clients.out")"
done
[ ! -s "$work/clients.err" ] || fail "clients wrote to stderr: $(cat "$work/clients.err")"

# The way of an error: said in one line, exit status 1. The model service is no task registry.
code=0
"$work/examples/clients" "$model" "$model/v1" "file://$work/remote.git" >"$work/clients.out" 2>"$work/clients.err" || code=$?
[ "$code" = 1 ] || fail "a service that is none: exit status $code, not 1"
grep -q '^clients: .*task-registry' "$work/clients.err" || fail "the error does not name the service: $(cat "$work/clients.err")"
echo "package_test: passed"

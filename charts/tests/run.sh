#!/bin/sh
# Renders the chart with Helm and checks what comes out. What it needs it installs below the target directory, which takes the
# network the first time. Usage: run.sh [TEST], part of a name.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if [ "$(uname -sm)" != 'Linux x86_64' ]; then
    echo 'charts/tests: there is no Helm library for this machine, the chart is not checked' >&2
    exit 0
fi
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
"$root/scripts/install-needs" cc python3 python3-venv nodejs

venv=$target/chart-venv
packages=$target/chart-helm
npm=$target/chart-npm
if ! "$venv/bin/python" -c 'import kubernetes_validate' 2>/dev/null; then
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt" >&2
fi
if ! ls "$packages"/helm_sdkpy/_lib/*/libhelm_sdkpy.so >/dev/null 2>&1; then
    # Only its library is used, not its Python, which would need a newer one than Debian 12 has.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --target "$packages" --no-deps \
        --only-binary=:all: --ignore-requires-python --requirement "$here/helm-requirements.txt" >&2
fi
if ! [ -d "$npm/node_modules/@kubernetes-models/prometheus-operator" ]; then
    mkdir -p "$npm"
    cp "$here/package.json" "$npm/"
    (cd "$npm" && npm install --silent --no-fund --no-audit --no-package-lock --ignore-scripts) >&2
fi
cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p multiend --bin multiend --target-dir "$target"

export HELM_PACKAGES="$packages" MULTIEND="$target/debug/multiend" NODE_PATH="$npm/node_modules"
cd "$here"
log=$target/chart.log
# Helm says for every chart that it follows symbolic links.
if PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m unittest ${1:+-k "$1"} test_chart >"$log" 2>&1; then
    grep -v 'INFO found symbolic link' "$log" | tail -n 4
else
    grep -v 'INFO found symbolic link' "$log" >&2
    exit 1
fi

#!/usr/bin/env bash
# Installs axe-core, which checks the accessibility of reports in tests, where that can be done: with npm.
# Elsewhere it says why not, and that test is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -f .venv/axe/axe.min.js ]; then
	exit 0
fi
if ! command -v npm > /dev/null; then
	echo "no npm to install axe-core with: the accessibility of reports is not checked by it" >&2
	exit 0
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
if (cd "$made" && npm pack --silent "axe-core@^4.10" > /dev/null && tar -xzf axe-core-*.tgz); then
	mkdir -p .venv/axe
	mv "$made/package/axe.min.js" .venv/axe/
else
	echo "npm could not fetch axe-core: the accessibility of reports is not checked by it" >&2
fi

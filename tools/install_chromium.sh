#!/usr/bin/env bash
# Installs the browser that the tests open reports in, where that can be done: with apt-get, as root.
# Elsewhere it says why not, and those tests are skipped.
set -euo pipefail
if command -v chromium > /dev/null; then
	exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
	echo "no Chromium, and no apt-get as root to install it: reports are not opened in a browser" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } > /dev/null || {
	echo "apt-get could not install Chromium: reports are not opened in a browser" >&2
}

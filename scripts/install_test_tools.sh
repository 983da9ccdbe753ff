#!/usr/bin/env bash
# Installs the separate programs that some tests call: Java 17 for Bio-Formats, the reader inside QuPath, and Debian's
# Chromium for the viewer. Tests whose program is missing skip and say so.
set -euo pipefail
missing=()
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v chromium >/dev/null || missing+=(chromium)
[[ ${#missing[@]} == 0 ]] && exit 0
if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
else
    echo "${missing[*]} missing and cannot be installed from here; the tests that need them will skip" >&2
fi

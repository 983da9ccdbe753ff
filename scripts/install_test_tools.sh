#!/usr/bin/env bash
# Installs what some tests call as separate programs: Java 17 for Bio-Formats, the reader inside QuPath.
# Without it those tests skip and say so.
set -euo pipefail
command -v java >/dev/null && exit 0
if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openjdk-17-jre-headless >/dev/null
else
    echo "Java 17 is missing and cannot be installed from here; the Bio-Formats tests will skip" >&2
fi

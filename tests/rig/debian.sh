#!/bin/sh
# One program out of a Debian package, unpacked and not installed, so that it may come from a newer Debian than this one.
#   debian.sh SUITE PACKAGE FILE TARGET
set -eu
suite=$1 package=$2 file=$3 target=$4
at=$(mktemp -d)
trap 'rm -rf "$at"' EXIT
mkdir -p "$at/lists/partial" "$at/cache/archives/partial" "$(dirname "$target")"
# shellcheck disable=SC2016  apt's own placeholder
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?apt has no list of Debian packages: apt-get update} $suite main" > "$at/sources"
apart() {
  apt-get -qq -o Dir::Etc::SourceList="$at/sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$at/lists" \
    -o Dir::Cache="$at/cache" -o APT::Sandbox::User=root "$@"
}
apart update
(cd "$at" && apart download "$package")
dpkg-deb --extract "$at"/*.deb "$at/tree"
cp "$at/tree/$file" "$target"

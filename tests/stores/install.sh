#!/bin/sh
# Installs what the tests of stores and shells need, on Debian and as root: databases, Azure's emulator, zsh, fish, and
# Python packages into the environment whose `pip` comes first on the PATH.
set -eu
cd "$(dirname "$0")/../.."

export DEBIAN_FRONTEND=noninteractive
packages="postgresql mariadb-server zsh fish"
command -v npm >/dev/null || packages="$packages nodejs npm"
# Only the programs: the tests start servers of their own.
mkdir -p /etc/postgresql-common
printf 'create_main_cluster = false\nstart_conf = manual\n' >/etc/postgresql-common/createcluster.conf
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null

azurite="${XDG_CACHE_HOME:-$HOME/.cache}/trackdsl-azurite"
mkdir -p "$azurite"
[ -f "$azurite/package.json" ] || echo '{}' >"$azurite/package.json"
(cd "$azurite" && npm install --silent --no-audit --no-fund 'azurite@^3.35')

pip install --quiet -e '.[stores]'

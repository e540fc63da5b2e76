# prepare.sh: what ./demo and ./check share: installing what is missing and building. Sourced by bash; `root` is the project's folder.

build_packages="gcc libc6-dev meson ninja-build pkg-config python3 libldap-dev libsasl2-dev libkrb5-dev libjansson-dev libwslay-dev libevent-dev libssl-dev
  libsqlite3-dev libc-ares-dev libyaml-dev libsystemd-dev libcurl4-openssl-dev libunistring-dev libcmocka-dev"
demo_packages="python3-ldap python3-yaml openssl"
samba_packages="samba samba-ad-dc samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind krb5-user ldap-utils python3-samba"
test_packages="python3-pytest libsasl2-modules-gssapi-mit slapd 389-ds-base libnss3-tools python3-jsonschema python3-jwcrypto python3-cryptography python3-websockets python3-seccomp jose strace systemd procps iproute2 util-linux binutils gdb libasan8 libubsan1"

newer_packages="mmdebstrap"

programs="agent/writebackd agent/channel/writebackd-channel agent/ctl/writebackctl service/reset-service tests/support/mock-directory/mock-directory"

say() { printf '%s\n' "$*" >&2; }

# install_missing PACKAGE…: by apt-get, as root or by sudo.
install_missing() {
  local missing=() package
  for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  say "Installing ${missing[*]} …"
  # A package's own services are not wanted: the tests start what they need themselves.
  "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/tmp/writebackd-apt.$$.log 2>&1 ||
    { tail -20 /tmp/writebackd-apt.$$.log >&2; say "apt-get could not install ${missing[*]}"; return 1; }
  rm -f /tmp/writebackd-apt.$$.log
}

# build FOLDER "TARGETS" MESON-OPTION…: configures once, then builds the targets (all, where there are none). Quiet unless it fails.
build() {
  local folder=$1 targets=$2 log
  shift 2
  log=$(mktemp)
  if [ ! -f "$folder/build.ninja" ]; then
    # Debian's meson wants Debian's Python, whatever else is first in PATH.
    PATH=/usr/bin:$PATH meson setup "$folder" "$root" --werror "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
  fi
  # shellcheck disable=SC2086
  PATH=/usr/bin:$PATH ninja -C "$folder" $targets >"$log" 2>&1 || { cat "$log" >&2; return 1; }
  rm -f "$log"
}

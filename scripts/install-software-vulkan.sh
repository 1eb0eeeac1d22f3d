#!/bin/sh
# Installs software Vulkan (Mesa's lavapipe) on Debian, so that the wgpu backend has a device where there is no GPU.
#
# Prefers the version in <release>-backports (25.0.7 on Debian 12): stock Mesa 22.3.6 ends every shader loop after 65,535
# trips without an error. Does nothing where a Vulkan driver is installed. The backports entry is derived from the machine's
# own Debian sources, so that it uses the same mirror and the same key.
set -eu

say() { printf 'install-software-vulkan: %s\n' "$*" >&2; }

for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
    for icd in "$folder"/*.json; do
        if [ -e "$icd" ]; then
            say "a Vulkan driver is installed ($icd); nothing to do"
            exit 0
        fi
    done
done

command -v apt-get >/dev/null || { say "this is no Debian system: install a Vulkan driver with its own package manager"; exit 1; }
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { say "run this as root, or install sudo"; exit 1; }
    as_root=sudo
fi

release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
entry=/etc/apt/sources.list.d/rooftrace-backports

# Prints the first stanza of a deb822 file with its suites replaced.
deb822() {
    awk -v suite="$1" '
        /^[[:space:]]*#/ { next }
        /^[[:space:]]*$/ { if (seen) exit; next }
        /^[^[:space:]]/ { field = $1; seen = 1 }
        field == "Suites:" { if ($1 == "Suites:") print "Suites: " suite; next }
        { print }
    ' "$2"
}

# Prints the first binary entry of a one-line file that names the release, with its suite replaced.
one_line() {
    awk -v suite="$1" -v release="$release" '
        $1 == "deb" {
            for (at = 2; at < NF; at++) if ($at == release) { $at = suite; print; exit }
        }
    ' "$2"
}

add_backports() {
    # Another file may name the suite already.
    if grep -rqsE "^[^#]*[[:space:]]$release-backports([[:space:]]|$)" /etc/apt/sources.list /etc/apt/sources.list.d/; then
        return 0
    fi
    if [ -s /etc/apt/sources.list.d/debian.sources ]; then
        deb822 "$release-backports" /etc/apt/sources.list.d/debian.sources | $as_root tee "$entry.sources" >/dev/null
    elif [ -s /etc/apt/sources.list ]; then
        line=$(one_line "$release-backports" /etc/apt/sources.list)
        [ -n "$line" ] || return 1
        printf '%s\n' "$line" | $as_root tee "$entry.list" >/dev/null
    else
        return 1
    fi
}

install() {
    # $1: nothing, or "-t suite".
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1 mesa-vulkan-drivers libvulkan1
}

if [ -n "$release" ] && add_backports && $as_root apt-get update && install "-t $release-backports"; then
    say "installed mesa-vulkan-drivers $(dpkg-query -W -f '${Version}' mesa-vulkan-drivers)"
    exit 0
fi
say "no usable $release-backports here; falling back to the stock version, which may cut shader loops at 65,535 trips"
$as_root rm -f "$entry.sources" "$entry.list"
$as_root apt-get update
install ""
say "installed mesa-vulkan-drivers $(dpkg-query -W -f '${Version}' mesa-vulkan-drivers)"

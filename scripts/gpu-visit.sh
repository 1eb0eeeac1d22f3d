#!/bin/sh
# Verifies and measures every GPU of a machine, and collects records and logs to be carried home. Needs the release binary and a
# driver; no Rust, no network; Python only helps to find pip-installed NVIDIA libraries. Takes at most eight minutes, or the
# seconds that the environment's SECONDS_ALLOWED names.
#
# usage: scripts/gpu-visit.sh [BINARY [OUT [DEVICES]]]
#   BINARY   default: rooftrace beside this script, else target/release/rooftrace
#   OUT      default: $OUT, else gpu-visit-<UTC time>
#   DEVICES  default: $DEVICES, else cuda:0 and every hardware wgpu device; `host` makes a dry run
# The runs have the size of the environment's SIZE, by default standard.
#
# A step that fails does not stop the next. Exit code: 0 all steps passed, 1 some failed, 2 no binary, 3 no device.
set -u

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-}
for candidate in "$here/rooftrace" "$here/../target/release/rooftrace" ./target/release/rooftrace; do
    [ -n "$binary" ] || ! [ -x "$candidate" ] || binary=$candidate
done
if [ -z "$binary" ] || ! [ -x "$binary" ]; then
    echo "gpu-visit: there is no program '${binary:-rooftrace}'; give its path as the first argument" >&2
    exit 2
fi
out=${2:-${OUT:-gpu-visit-$(date -u +%Y%m%dT%H%M%S)}}
devices=${3:-${DEVICES:-}}
mkdir -p "$out/logs" || exit 2
begun=$(date +%s)
allowed=${SECONDS_ALLOWED:-470} # of the eight minutes; the rest is for copying and the summary
failed=0
: > "$out/steps.txt"

# NVIDIA libraries that pip installed lie in folders that no loader looks into.
pip_folders=$(python3 - 2>/dev/null <<'PY'
import glob, site, sysconfig
roots = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], site.getusersitepackages(), *site.getsitepackages()}
print(":".join(sorted(d for root in roots for d in glob.glob(root + "/nvidia/*/lib"))))
PY
)
for folder in /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64; do
    [ -d "$folder" ] && pip_folders=${pip_folders:+$pip_folders:}$folder
done
[ -z "$pip_folders" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$pip_folders"

# step NAME SECONDS COMMAND…: runs it within that time and what is left of the visit, keeps its output and exit code.
step() {
    name=$1
    seconds=$2
    shift 2
    left=$((allowed - $(date +%s) + begun))
    [ "$seconds" -le "$left" ] || seconds=$left
    if [ "$seconds" -lt 5 ]; then
        echo "not run  $name (no time left)" | tee -a "$out/steps.txt"
        failed=$((failed + 1))
        return 1
    fi
    started=$(date +%s)
    echo "== $name: $*"
    timeout -k 10 "$seconds" "$@" > "$out/logs/$name.txt" 2> "$out/logs/$name.err.txt"
    code=$?
    took=$(($(date +%s) - started))
    word=passed
    if [ "$code" -ne 0 ]; then
        word=FAILED
        [ "$code" -ne 5 ] || word=PARTIAL # finished with holes: what was measured is saved
        [ "$code" -ne 124 ] || word=TIMEOUT
        failed=$((failed + 1))
        tail -n 5 "$out/logs/$name.err.txt"
    fi
    tail -n 25 "$out/logs/$name.txt"
    echo "$word  $name  exit $code  ${took}s" >> "$out/steps.txt"
    return "$code"
}

# seen NAME COMMAND…: for the log only; its failure says nothing of us.
seen() {
    name=$1
    shift
    command -v "$1" > /dev/null 2>&1 || return 0
    timeout 20 "$@" > "$out/logs/$name.txt" 2>&1
    head -n 12 "$out/logs/$name.txt"
}

seen driver nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit,mig.mode.current --format=csv
seen driver-state nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,ECC
seen vulkan vulkaninfo --summary
seen system uname -srm
step devices 60 "$binary" devices
if [ -z "$devices" ]; then
    # The plain list says `software` of a rasteriser: not what a visit to a GPU is for.
    devices=$(awk '/^(cuda|wgpu):[0-9]+ / && !/software/ { print $1 }' "$out/logs/devices.txt" | tr '\n' ' ')
fi
if [ -z "$devices" ]; then
    cat "$out/logs/devices.txt"
    echo "gpu-visit: no GPU was found; the list above says why. A dry run: $0 '$binary' '$out' host" >&2
    exit 3
fi
echo "devices: $devices"

# Which of the vendor's libraries are found, as references, in a table of their own: a missing one is a skip with its reason.
for device in $devices; do
    case $device in cuda:*) ;; *) continue ;; esac
    name=$(echo "$device" | tr -d ':')
    step "references-$name" 60 "$binary" verify --device "$device" --variant cublas,cublaslt,cudnn --quiet
done
# Outputs first: a number from a wrong kernel is worth nothing.
for device in $devices; do
    name=$(echo "$device" | tr -d ':')
    step "verify-$name" 100 "$binary" verify --device "$device" --quiet
done
for device in $devices; do
    case $device in cuda:*) ;; *) continue ;; esac
    name=$(echo "$device" | tr -d ':')
    if command -v compute-sanitizer > /dev/null 2>&1; then
        step "memcheck-$name" 90 compute-sanitizer --tool memcheck --target-processes all --error-exitcode 99 \
            "$binary" verify --device "$device" --size small --quiet
    else
        echo "skipped  memcheck-$name (compute-sanitizer is not installed)" | tee -a "$out/steps.txt"
    fi
done
# What is left is shared by the runs; the last half minute is theirs to end in.
runs=$(echo "$devices" | wc -w)
for device in $devices; do
    name=$(echo "$device" | tr -d ':')
    left=$((allowed - $(date +%s) + begun - 30))
    share=$((left / runs))
    runs=$((runs - 1))
    [ "$share" -le 200 ] || share=200
    step "run-$name" $((share + 25)) "$binary" run --device "$device" --size "${SIZE:-standard}" --budget "${share}s" --out "$out/$name"
done
# Planted mistakes, if there is time: they may hang or crash a device, so they come last.
for device in $devices; do
    name=$(echo "$device" | tr -d ':')
    left=$((allowed - $(date +%s) + begun))
    if [ "$left" -lt 60 ]; then
        echo "skipped  mutants-$name (${left}s left)" | tee -a "$out/steps.txt"
        continue
    fi
    step "mutants-$name" $((left - 20)) "$binary" verify --device "$device" --mutants --quiet
done

{
    echo
    echo "$("$binary" --version 2>/dev/null), $(date -u +%Y-%m-%dT%H:%MZ), $(($(date +%s) - begun))s, devices: $devices"
    cat "$out/steps.txt"
    find "$out" -name records.jsonl | sort | while read -r file; do echo "records  $file  $(wc -l < "$file") lines"; done
    [ "$failed" -eq 0 ] && echo "all steps passed" || echo "$failed steps failed or were not run; see $out/logs"
} | tee "$out/summary.txt"
[ "$failed" -eq 0 ]

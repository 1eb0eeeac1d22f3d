#!/bin/sh
# Verifies and measures every GPU of a machine, and collects what is to be carried home. Needs the release binary and a driver; no Rust, no
# network; Python finds pip-installed NVIDIA libraries and measures the figures. Takes at most eight minutes, or the seconds that the
# environment's SECONDS_ALLOWED names.
#
# usage: scripts/gpu-visit.sh [BINARY [OUT [DEVICES [COMPARE]]]]
#   BINARY   default: rooftrace beside this script, else target/release/rooftrace
#   OUT      default: $OUT, else gpu-visit-<UTC time>
#   DEVICES  default: $DEVICES, else cuda:0 and every hardware wgpu device; `host` makes a dry run
#   COMPARE  the release example compare_kernels, for gpu_figures.py; default: $COMPARE, else beside BINARY or in its folder examples
# The runs have the size of the environment's SIZE, by default standard. ONLY=proof leaves the studies out, ONLY=studies does nothing else (a second
# visit's work, where one is not long enough for both); STUDIES names some of them.
#
# OUT receives summary.txt, <device>/records.jsonl, figures.json and, with all logs and pictures, visit.tgz: eight files for five devices, each
# as it is after the last step that ended. A step that fails does not stop the next.
# Exit code: 0 all steps passed, 1 some failed, 2 no binary, 3 no device.
set -u

here=$(cd "$(dirname "$0")" && pwd)
# first GIVEN CANDIDATE…: what was given, else the first candidate that is a program.
first() {
    found=$1
    shift
    for candidate in "$@"; do
        [ -n "$found" ] || ! [ -x "$candidate" ] || found=$candidate
    done
    echo "$found"
}
binary=$(first "${1:-}" "$here/rooftrace" "$here/../target/release/rooftrace" ./target/release/rooftrace)
if [ -z "$binary" ] || ! [ -x "$binary" ]; then
    echo "gpu-visit: there is no program '${binary:-rooftrace}'; give its path as the first argument" >&2
    exit 2
fi
case ${ONLY:-} in
    '' | proof | studies) ;;
    *)
        echo "gpu-visit: ONLY is '$ONLY'; set it to proof or studies, or leave it out" >&2
        exit 2
        ;;
esac
compare=$(first "${4:-${COMPARE:-}}" "$(dirname "$binary")/compare_kernels" "$(dirname "$binary")/examples/compare_kernels")
out=${2:-${OUT:-gpu-visit-$(date -u +%Y%m%dT%H%M%S)}}
devices=${3:-${DEVICES:-}}
begun=$(date +%s)
allowed=${SECONDS_ALLOWED:-470} # of the eight minutes; the rest is for copying
later=$((allowed / 5))          # of these for memcheck and mutants, behind the proof
failed=0

work=$(mktemp -d) || exit 2
trap 'keep; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
visit=$work/visit
mkdir -p "$out" "$visit/logs" || exit 2

left() { echo $((allowed - $(date +%s) + begun)); }
least() { [ "$1" -le "$2" ] && echo "$1" || echo "$2"; }
named() { echo "$1" | tr -d ':'; }

# keep: what there is by now, in OUT.
keep() {
    for file in "$visit"/*/records.jsonl; do
        [ -f "$file" ] || continue
        folder=$out/$(basename "$(dirname "$file")")
        mkdir -p "$folder" && cp "$file" "$folder/"
    done
    for file in "$visit/summary.txt" "$visit/figures/figures.json"; do
        [ ! -f "$file" ] || cp "$file" "$out/"
    done
    tar -czf "$out/visit.tgz" -C "$work" visit
}

# tell WORDS…: a line of the summary.
tell() {
    echo "$*" | tee -a "$visit/summary.txt"
    keep
}

# step NAME SECONDS COMMAND…: runs it within that time and what is left of the visit, keeps its output, exit code and time.
step() {
    called=$1
    seconds=$(least "$2" "$(left)")
    shift 2
    if [ "$seconds" -lt 5 ]; then
        failed=$((failed + 1))
        tell "not run  $called (no time left)"
        return 1
    fi
    started=$(date +%s)
    echo "== $called: $*"
    timeout -k 10 "$seconds" "$@" > "$visit/logs/$called.txt" 2> "$visit/logs/$called.err.txt"
    code=$?
    case $code in
        0) word="passed " ;;
        5) word=PARTIAL ;; # finished with holes: what was measured is saved
        124 | 137) word=TIMEOUT ;;
        *) word="FAILED " ;;
    esac
    tail -n 30 "$visit/logs/$called.txt"
    if [ "$code" -ne 0 ]; then
        failed=$((failed + 1))
        tail -n 5 "$visit/logs/$called.err.txt"
    fi
    tell "$word  $called  exit $code  $(($(date +%s) - started))s"
    return "$code"
}

# seen NAME COMMAND…: for the log only; its failure says nothing of us.
seen() {
    called=$1
    shift
    command -v "$1" > /dev/null 2>&1 || return 0
    timeout 20 "$@" > "$visit/logs/$called.txt" 2>&1
    head -n 12 "$visit/logs/$called.txt"
}

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

# figures: of the first CUDA device that is proved, from its run and with the cache that this filled.
figures() {
    if [ -d "$visit/figures" ]; then
        return 0
    elif ! [ -x "$compare" ]; then
        tell "skipped  figures-$name (there is no program '${compare:-compare_kernels}'; give its path as the fourth argument)"
    elif ! command -v python3 > /dev/null 2>&1; then
        tell "skipped  figures-$name (there is no python3)"
    else
        set --
        [ ! -f "$visit/$name/records.jsonl" ] || set -- "$visit/$name/records.jsonl" "$visit/logs/run-$name.err.txt"
        step "figures-$name" $((ends - $(date +%s))) env ROOFTRACE_CACHE="$work/cache-$name" PYTHONUNBUFFERED=1 \
            python3 "$here/gpu_figures.py" "$binary" "$compare" "$visit/figures" "$device" "$@"
    fi
}

# prove DEVICE SECONDS: its proof within that time. Outputs first: a number from a wrong kernel is worth nothing.
prove() {
    device=$1
    name=$(named "$device")
    ends=$(($(date +%s) + $2))
    step "verify-$name" "$(least 120 "$2")" "$binary" verify --device "$device" --quiet
    # Whether the vendor's libraries were found, as references.
    grep -A 1 '(reference)' "$visit/logs/verify-$name.txt" 2> /dev/null
    budget=$((ends - $(date +%s) - 25))
    case $device in cuda:*) budget=$((budget - $(least 60 $(($2 / 4))))) ;; esac # the figures' least
    budget=$(least 170 "$budget")
    if [ "$budget" -lt 10 ]; then
        failed=$((failed + 1))
        tell "not run  run-$name (no time left)"
    else
        # With a cache of its own, so that its log tells what compiling everything takes.
        step "run-$name" $((budget + 25)) env ROOFTRACE_CACHE="$work/cache-$name" \
            "$binary" run --device "$device" --size "${SIZE:-standard}" --budget "${budget}s" --out "$visit/$name"
    fi
    case $device in cuda:*) figures ;; esac
}

seen driver nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit,mig.mode.current --format=csv
seen driver-state nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,ECC
seen vulkan vulkaninfo --summary
seen system uname -srm
step devices 60 "$binary" devices
if [ -z "$devices" ]; then
    # The plain list says `software` of a rasteriser: not what a visit to a GPU is for. CUDA sorts before wgpu.
    devices=$(awk '/^(cuda|wgpu):[0-9]+ / && !/software/ { print $1 }' "$visit/logs/devices.txt" | sort | tr '\n' ' ')
fi
if [ -z "$devices" ]; then
    cat "$visit/logs/devices.txt"
    echo "gpu-visit: no GPU was found; the list above says why. A dry run: $0 '$binary' '$out' host" >&2
    exit 3
fi
echo "devices: $devices"

# Proof of one device after the other; CUDA has three times another's share of the time.
weight() { case $1 in cuda:*) echo 3 ;; *) echo 1 ;; esac }
weights=0
for device in $devices; do
    weights=$((weights + $(weight "$device")))
done
proved=$devices
studies=${STUDIES:-depthwise attention batch precision misnomer attention-variants energy}
case ${ONLY:-} in
    proof) studies= ;;
    studies) proved= ;;
esac
for device in $proved; do
    weight=$(weight "$device")
    prove "$device" $((($(left) - later) * weight / weights))
    weights=$((weights - weight))
done
for device in $proved; do
    case $device in cuda:*) ;; *) continue ;; esac
    name=$(named "$device")
    if command -v compute-sanitizer > /dev/null 2>&1; then
        step "memcheck-$name" 90 compute-sanitizer --tool memcheck --target-processes all --error-exitcode 99 \
            "$binary" verify --device "$device" --size small --quiet
    else
        tell "skipped  memcheck-$name (compute-sanitizer is not installed)"
    fi
done
# Studies, if there is time: what they answer and take; `energy` is one that reads the card's counters.
for device in $devices; do
    name=$(named "$device")
    for study in $studies; do
        set -- "$study"
        [ "$study" != energy ] || set -- precision --columns cost --energy
        if [ "$(left)" -lt 90 ]; then
            tell "skipped  study-$study-$name ($(left)s left)"
        else
            step "study-$study-$name" 90 "$binary" study "$@" --device "$device" --size "${SIZE:-standard}" \
                --out "$visit/studies/$study-$name"
        fi
    done
done
# Planted mistakes, if there is time: they may hang or crash a device, so they come last.
for device in $proved; do
    name=$(named "$device")
    if [ "$(left)" -lt 30 ]; then
        tell "skipped  mutants-$name ($(left)s left)"
        continue
    fi
    step "mutants-$name" $(($(left) - 10)) "$binary" verify --device "$device" --mutants --quiet
done

{
    echo "$("$binary" --version 2>/dev/null), $(date -u +%Y-%m-%dT%H:%MZ), $(($(date +%s) - begun))s, devices: $devices"
    for file in "$visit"/*/records.jsonl; do
        [ ! -f "$file" ] || echo "records  $(basename "$(dirname "$file")")  $(wc -l < "$file") lines"
    done
    [ "$failed" -eq 0 ] && echo "all steps passed" || echo "$failed steps failed or were not run; their logs are in $out/visit.tgz"
} >> "$visit/summary.txt"
echo
cat "$visit/summary.txt"
[ "$failed" -eq 0 ]

#!/bin/sh
# Measures and verifies every GPU of a machine, and collects what is to be carried home. Needs the release binary and a driver; no Rust, no
# network; Python finds pip-installed NVIDIA libraries and measures the figures. Takes at most eight minutes, or the seconds that the
# environment's SECONDS_ALLOWED names.
#
# usage: scripts/gpu-visit.sh [BINARY [OUT [DEVICES [COMPARE]]]]
#   BINARY   default: rooftrace beside this script, else target/release/rooftrace; or both programs as one archive, a third of their size:
#            tar czf visit.tgz -C target/release rooftrace examples/compare_kernels
#   OUT      default: $OUT, else gpu-visit-<UTC time>
#   DEVICES  default: $DEVICES, else every CUDA and hardware wgpu device; `host` makes a dry run
#   COMPARE  the release example compare_kernels, for gpu_figures.py; default: $COMPARE, else beside BINARY or in its folder examples
#
# Records and figures come first, whatever happens later: of each CUDA device the run (which verifies every output that it times), the figures,
# all awkward shapes, the same under compute-sanitizer; then other devices and studies; last planted mistakes, which may hang a device.
# SIZE is that of the runs, by default standard; STUDIES names some of the studies. All of it takes two visits, the second with the roofs of
# the first:
#   SECONDS_ALLOWED=575 ONLY=proof scripts/gpu-visit.sh visit.tgz
#   SECONDS_ALLOWED=200 ONLY=studies RUN=first-visit/cuda0/records.jsonl scripts/gpu-visit.sh visit.tgz
# ONLY=figures RUN=… measures the figures alone, on that run's roofs.
#
# OUT receives summary.txt, <device>/records.jsonl, figures.json and, with all logs and pictures, visit.tgz: eight files for five devices, each
# as it was a quarter of a minute ago at most. A step that fails does not stop the next.
# Exit code: 0 all steps passed, 1 some failed, 2 wrong usage or no binary, 3 no device.
set -u

here=$(cd "$(dirname "$0")" && pwd)
# usage WORDS…: what is wrong with the call.
usage() {
    echo "gpu-visit: $*" >&2
    exit 2
}
# first GIVEN CANDIDATE…: what was given, else the first candidate that is a program.
first() {
    found=$1
    shift
    for candidate in "$@"; do
        [ -n "$found" ] || ! [ -x "$candidate" ] || found=$candidate
    done
    echo "$found"
}
case ${ONLY:-} in
    '' | proof | figures | studies) ;;
    *) usage "ONLY is '$ONLY'; set it to proof, figures or studies, or leave it out" ;;
esac
[ -z "${RUN:-}" ] || [ -f "$RUN" ] || usage "there is no file '$RUN'; RUN is the records.jsonl of an earlier run"
out=${2:-${OUT:-gpu-visit-$(date -u +%Y%m%dT%H%M%S)}}
devices=${3:-${DEVICES:-}}
begun=$(date +%s)
allowed=${SECONDS_ALLOWED:-470} # of the eight minutes; the rest is for copying
later=$((allowed / 8))          # of these for memcheck and mutants, behind the proof
failed=0 running='' keeper='' figures=''

work=$(mktemp -d) || exit 2
visit=$work/visit
# What still runs is ended, and what there is by now is kept, however this ends.
leave() {
    # shellcheck disable=SC2086 # none, or two numbers
    [ -z "$running$keeper" ] || kill $running $keeper 2> /dev/null
    ! [ -d "$visit" ] || keep last
    wait
    rm -rf "$work" "$out"/*.part-* "$out"/*/*.part-*
}
trap leave EXIT
trap 'exit 130' INT TERM

binary=$(first "${1:-}" "$here/rooftrace" "$here/../target/release/rooftrace" ./target/release/rooftrace)
case $binary in
    *.tgz | *.tar.gz)
        mkdir "$work/programs"
        tar -xzf "$binary" -C "$work/programs" || usage "cannot unpack '$binary'"
        binary=$work/programs/rooftrace
        ;;
esac
[ -n "$binary" ] && [ -x "$binary" ] || usage "there is no program '${binary:-rooftrace}'; give its path as the first argument"
compare=$(first "${4:-${COMPARE:-}}" "$(dirname "$binary")/compare_kernels" "$(dirname "$binary")/examples/compare_kernels")
mkdir -p "$out" "$visit/logs" || exit 2

left() { echo $((allowed - $(date +%s) + begun)); }
least() { [ "$1" -le "$2" ] && echo "$1" || echo "$2"; }
most() { [ "$1" -ge "$2" ] && echo "$1" || echo "$2"; }
named() { echo "$1" | tr -d ':'; }
is_cuda() { case $1 in cuda:*) ;; *) return 1 ;; esac }

# put FILE TO WHO: copies it aside and renames, so that an end at any moment leaves a whole file.
put() {
    cp "$1" "$2.part-$3" && mv "$2.part-$3" "$2"
}

# keep WHO: what there is by now, in OUT. Two may do so at once.
keep() {
    for file in "$visit"/*/records.jsonl; do
        [ -f "$file" ] || continue
        folder=$out/$(basename "$(dirname "$file")")
        mkdir -p "$folder" && put "$file" "$folder/records.jsonl" "$1"
    done
    for file in "$visit/summary.txt" "$visit/figures/figures.json"; do
        [ ! -f "$file" ] || put "$file" "$out/$(basename "$file")" "$1"
    done
    # A file that grows meanwhile is no mishap.
    tar -czf "$work/visit.tgz-$1" -C "$work" visit 2> /dev/null
    put "$work/visit.tgz-$1" "$out/visit.tgz" "$1"
}

# A step may be cut, and this script killed with it, before it has told anything.
while sleep 15; do
    keep meanwhile
done > /dev/null 2>&1 &
keeper=$!

# tell WORDS…: a line of the summary.
tell() {
    echo "$*" | tee -a "$visit/summary.txt"
    keep told
}

# spare NAME SECONDS: whether so many are left; says so where they are not.
spare() {
    [ "$(left)" -ge "$2" ] && return
    tell "skipped  $1 ($(left)s left)"
    return 1
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
    # In the background, as a shell that waits for a program hears no signal.
    timeout -k 10 "$seconds" "$@" > "$visit/logs/$called.txt" 2> "$visit/logs/$called.err.txt" &
    running=$!
    wait "$running"
    code=$?
    running=''
    case $code in
        0) word="passed " ;;
        5) word=PARTIAL ;; # finished with holes: what was measured is saved
        124 | 137) word=TIMEOUT ;;
        *) word="FAILED " ;;
    esac
    tail -n 12 "$visit/logs/$called.txt"
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

# NVIDIA libraries that pip installed lie in folders that no loader looks into, some only under names with a version. They are asked for by names
# without one, which another toolkit's may have too: links come first, so that all are of one making, and that toolkit last.
mkdir "$work/lib"
pip_folders=$(python3 - "$work/lib" 2> /dev/null <<'PY'
import glob, os, re, site, sys, sysconfig
roots = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], site.getusersitepackages(), *site.getsitepackages()}
folders = sorted(d for root in roots for d in glob.glob(root + "/nvidia/*/lib"))
for name in ("cublas", "cublasLt", "cudnn", "nvrtc", "cudart"):
    files = [file for folder in folders for file in glob.glob(f"{folder}/lib{name}.so*")]
    if files:
        version = lambda file: [int(part) for part in re.findall(r"\d+", os.path.basename(file).split(".so")[1])]
        os.symlink(max(files, key=version), f"{sys.argv[1]}/lib{name}.so")
print(":".join(folders))
PY
)
libraries=$work/lib${pip_folders:+:$pip_folders}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
for folder in /usr/local/cuda/lib64 /usr/local/cuda/extras/CUPTI/lib64 /usr/local/nvidia/lib64; do
    [ ! -d "$folder" ] || libraries=$libraries:$folder
done
export LD_LIBRARY_PATH="$libraries"
[ ! -d /usr/local/cuda/bin ] || export PATH="$PATH:/usr/local/cuda/bin"
# A new cache, so that the log of the first run tells what compiling everything takes.
export ROOFTRACE_CACHE="$work/cache"

# roof DEVICE: the records of this visit's run of it, else those that RUN names, if they have its roofs.
roof() {
    for file in "$visit/$(named "$1")/records.jsonl" "${RUN:-}"; do
        if [ -f "$file" ] && head -n 1 "$file" | grep -qF "\"device\":{\"id\":\"$1\"" && grep -q '"record":"ceiling"' "$file"; then
            echo "$file"
            return
        fi
    done
}

# figures DEVICE SECONDS: of the first CUDA device, or dry of the host, from its run and with the cache that this filled.
figures() {
    case $1 in cuda:* | host) ;; *) return 0 ;; esac
    name=$(named "$1")
    if [ -n "$figures" ]; then
        return 0
    elif ! [ -x "$compare" ]; then
        tell "skipped  figures-$name (there is no program '${compare:-compare_kernels}'; give its path as the fourth argument)"
    elif ! command -v python3 > /dev/null 2>&1; then
        tell "skipped  figures-$name (there is no python3)"
    else
        figures=$name
        seconds=$(least "$2" "$(left)")
        run=$(roof "$1")
        log=$visit/logs/run-$name.err.txt
        set -- "$1" ${run:+"$run"}
        [ "$run" != "$visit/$name/records.jsonl" ] || set -- "$@" "$log"
        # It ends a little earlier by itself, with a line for every figure.
        step "figures-$name" "$seconds" env SECONDS_ALLOWED=$((seconds - 12)) PYTHONUNBUFFERED=1 \
            python3 "$here/gpu_figures.py" "$binary" "$compare" "$visit/figures" "$@"
    fi
}

# prove DEVICE SECONDS: its proof within that time.
prove() {
    name=$(named "$1")
    ends=$(($(date +%s) + $2))
    for_verify=$(least 180 $(($2 / 4)))
    for_figures=0
    case $1 in
        cuda:*) for_figures=$(least 140 $(($2 * 2 / 5))) ;;
        host) for_figures=40 ;;
    esac
    budget=$(least 170 $(($2 - for_verify - for_figures - 25)))
    if [ "$budget" -lt 10 ]; then
        failed=$((failed + 1))
        tell "not run  run-$name (no time left)"
    else
        step "run-$name" $((budget + 25)) "$binary" run --device "$1" --size "${SIZE:-standard}" --budget "${budget}s" --out "$visit/$name"
    fi
    figures "$1" "$(most "$for_figures" $((ends - $(date +%s) - for_verify)))"
    # Its lines on standard error tell how far it came.
    step "verify-$name" "$(most "$for_verify" "$(least 180 $((ends - $(date +%s))))")" "$binary" verify --device "$1"
    # Whether the vendor's libraries were found, as references.
    grep -A 1 '(reference)' "$visit/logs/verify-$name.txt" 2> /dev/null
}

# memcheck DEVICE: verify under compute-sanitizer, one op after the other, as what is cut tells nothing. Calls of the driver that libraries make
# and recover from are no errors of ours.
memcheck() {
    if ! command -v compute-sanitizer > /dev/null 2>&1; then
        tell "skipped  memcheck-$(named "$1") (compute-sanitizer is not installed)"
        return
    fi
    for op in matmul conv2d depthwise attention; do
        spare "memcheck-$(named "$1")-$op and what follows" 15 || return
        step "memcheck-$(named "$1")-$op" 30 compute-sanitizer --tool memcheck --target-processes all --report-api-errors no \
            --error-exitcode 99 "$binary" verify --device "$1" --op "$op" --size small
    done
}

# study DEVICE: the studies, in what time is left: what they answer and take; `energy` is one that reads the card's counters.
study() {
    ROOF=$(roof "$1")
    export ROOF
    # shellcheck disable=SC2086 # words
    set -- "$1" $studies
    device=$1
    shift
    for study in "$@"; do
        spare "studies of $(named "$device"): $*" 30 || return
        # An equal share for each, or what one needs at least.
        seconds=$(least 90 "$(most 40 $(($(left) / $#)))")
        shift
        words=$study
        [ "$study" != energy ] || words='precision --columns cost --energy'
        # A roof that lacks one of the study's types is refused at once; then it is traced.
        # shellcheck disable=SC2016,SC2086 # another shell's variables; words
        step "study-$study-$(named "$device")" "$seconds" \
            sh -c '"$@" ${ROOF:+--roof "$ROOF"}; code=$?; [ "$code" -ne 6 ] || exec "$@"; exit "$code"' - \
            "$binary" study $words --device "$device" --size "${SIZE:-standard}" \
            --budget $(($(least "$seconds" "$(left)") - 8))s --out "$visit/studies/$study-$(named "$device")"
    done
}

# mutants DEVICE: planted mistakes, one op after the other, then the probes'.
mutants() {
    probes=stream,fma,matrix,dot,exp,shared,chase,launch,ramp
    for op in matmul conv2d depthwise attention quantized linformer,performer $probes; do
        spare "mutants-$(named "$1")-${op%%,*} and what follows" 10 || return
        step "mutants-$(named "$1")-${op%%,*}" 60 "$binary" verify --device "$1" --mutants --op "$op"
    done
}

seen driver nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit,mig.mode.current --format=csv
seen driver-state nvidia-smi -q -d CLOCK,POWER,PERFORMANCE,ECC
seen vulkan vulkaninfo --summary
seen system uname -srm
step devices 60 "$binary" devices
if [ -z "$devices" ]; then
    # The plain list says `software` of a rasteriser: not what a visit to a GPU is for.
    devices=$(awk '/^(cuda|wgpu):[0-9]+ / && !/software/ { print $1 }' "$visit/logs/devices.txt")
fi
if [ -z "$devices" ]; then
    cat "$visit/logs/devices.txt"
    echo "gpu-visit: no GPU was found; the list above says why. A dry run: $0 '$binary' '$out' host" >&2
    exit 3
fi
# CUDA first: others have what it leaves.
cuda='' others=''
for device in $devices; do
    is_cuda "$device" && cuda="$cuda $device" || others="$others $device"
done
echo "devices:$cuda$others"

studies=${STUDIES:-depthwise attention batch precision misnomer attention-variants energy}
case ${ONLY:-} in
    proof) proof=yes studies='' ;;
    figures) proof='' studies='' ;;
    studies) proof='' ;;
    *) proof=yes ;;
esac
if [ "${ONLY:-}" = figures ]; then
    for device in $cuda $others; do
        figures "$device" "$(left)"
    done
fi
if [ -n "$proof" ]; then
    # shellcheck disable=SC2086 # words
    set -- $cuda
    for device in $cuda; do
        prove "$device" $((($(left) - later) / $#))
        memcheck "$device"
        shift
    done
    # shellcheck disable=SC2086 # words
    set -- $others
    for device in $others; do
        seconds=$((($(left) - later) / $#))
        shift
        if [ -n "$cuda" ]; then
            spare "proof-$(named "$device")" 120 || continue
            seconds=$(least 150 "$seconds")
        fi
        prove "$device" "$seconds"
    done
fi
for device in $cuda $others; do
    [ -z "$studies" ] || study "$device"
done
for device in $cuda $others; do
    # The host's kernels have no text that a mistake could be planted in.
    [ -z "$proof" ] || [ "$device" = host ] || mutants "$device"
done

{
    echo "$("$binary" --version 2> /dev/null), $(date -u +%Y-%m-%dT%H:%MZ), $(($(date +%s) - begun))s, devices:$cuda$others"
    for file in "$visit"/*/records.jsonl; do
        [ ! -f "$file" ] || echo "records  $(basename "$(dirname "$file")")  $(wc -l < "$file") lines"
    done
    [ "$failed" -eq 0 ] && echo "all steps passed" || echo "$failed steps failed or were not run; their logs are in $out/visit.tgz"
} >> "$visit/summary.txt"
echo
# Last what matters most, as often only the end of an output is kept.
[ -z "$figures" ] || cat "$visit/logs/figures-$figures.txt"
cat "$visit/summary.txt"
[ "$failed" -eq 0 ]

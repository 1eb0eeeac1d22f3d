#!/bin/sh
# Compares the host ceilings with C, and the host kernels with the ceilings, in interleaved pairs.
#
#   scripts/native-ceilings.sh [OUT.json] [PAIRS]
#
# Needs a C compiler with OpenMP and Python 3. Builds benches/native/*.c and examples/host_ceilings.rs, keeps both sides of a
# comparison running, and asks them in turn for one answer (the median of seven samples), 9 pairs by default. The figure of a comparison is
# the median of the pairs' ratios, so that a noisy machine slows both sides alike.
set -eu
cd "$(dirname "$0")/.."
build=${CARGO_TARGET_DIR:-target}/native
mkdir -p "$build"
cc=${CC:-cc}
$cc -O3 -march=native -fopenmp benches/native/fma.c -o "$build/fma"
$cc -O3 -march=native -fopenmp benches/native/stream.c -o "$build/stream"
$cc -O3 -march=native -fopenmp -DSTREAMING benches/native/stream.c -o "$build/stream-streaming"
cargo build --release --quiet --example host_ceilings
exec python3 scripts/native_ceilings.py "$build" "${CARGO_TARGET_DIR:-target}/release/examples/host_ceilings" "${1:-}" "${2:-9}"

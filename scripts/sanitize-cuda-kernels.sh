#!/usr/bin/env bash
# Address and race sanitizers over every CUDA kernel that runs on the CPU (tests/cudacpu): all awkward problems, all tunables, one order
# of lanes, dense inputs. Needs a C++ compiler with libasan, libubsan and libtsan (g++ on Debian) and no GPU.
#
#   scripts/sanitize-cuda-kernels.sh [address|thread] [NAMEPART]
#
# Both by default, one after the other; NAMEPART keeps kernels whose op/variant holds it, such as matmul/tiled.
#
# address  accesses past a tensor, past an array in shared memory, or past the shared memory that a launch gives; undefined behaviour
#          of C++: misaligned vectors, shifts, indices.
# thread   lanes of a block that touch the same memory with no barrier between them, one of them writing. Every lane is a thread of its
#          own to the sanitizer (tests/cudacpu/sanitize.h says what orders them, and what is not seen).
#
# First planted mistakes are to be reported, a missing __syncthreads() among them: a sanitizer that finds none fails here. The first
# finding of a kernel ends it with its report. On two busy cores planted mistakes take a minute, all races half an hour (11 minutes of CPU time), all
# addresses six minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0

kinds=(address thread)
case "${1:-}" in
address | thread) kinds=("$1") && shift ;;
esac
if [ $# -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: scripts/sanitize-cuda-kernels.sh [address|thread] [NAMEPART]" >&2
    exit 2
fi
part=${1:-}

for kind in "${kinds[@]}"; do
    echo "== $kind: planted mistakes"
    CUDACPU_SANITIZE=$kind cargo test --release --locked --test cuda -- --ignored --exact sanitized::planted_mistakes_are_reported
    echo "== $kind: ${part:-every kernel}"
    CUDACPU_SANITIZE=$kind CUDACPU_ONLY=$part cargo test --release --locked --test cuda -- --exact \
        every_cuda_source_computes_its_definition_with_any_tunables_and_in_any_order_of_lanes
done

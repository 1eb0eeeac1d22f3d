#!/bin/sh
# Compiles every CUDA kernel, with all its tunables, to machine code for sm_75 to sm_120. Needs no GPU and no driver: NVRTC comes
# from PyPI into the target folder.
#
# usage: scripts/check-cuda-kernels.sh [NVRTC_VERSION [--defaults | ONLY] [--update]]
#   --defaults  every kernel with its first tunables alone, as .ci/run asks: a minute and a half on two processors, where all take seven
#   ONLY        sources whose file names hold this, such as matmul-mma
#   --update    writes the registers that were found into registers.txt; without it, more than are there fail
set -eu
cd "$(dirname "$0")/.."
version=${1:-13.0.88}
if [ $# -gt 0 ]; then shift; fi
target=${CARGO_TARGET_DIR:-target}
venv=$target/nvrtc-$version
out=$target/rendered-kernels

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip show -q nvidia-cuda-nvrtc 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "nvidia-cuda-nvrtc==$version"
    # Reads the machine code, of any NVRTC since 12.9.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check nvidia-cuda-nvdisasm==13.5.37
fi
libraries=$("$venv/bin/python" - <<'PY'
import pathlib, sysconfig
found = sorted(pathlib.Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/lib/libnvrtc.so*"))
print(found[0].parent if found else "")
PY
)
[ -n "$libraries" ] || { echo "nvidia-cuda-nvrtc $version holds no libnvrtc" >&2; exit 1; }

"$venv/bin/python" scripts/check_cuda_kernels.py --self-test
rm -rf "$out"
cargo run --release --quiet --example render_kernels -- "$out"
exec "$venv/bin/python" scripts/check_cuda_kernels.py "$out" "$libraries" "$@"

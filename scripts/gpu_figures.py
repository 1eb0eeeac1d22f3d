"""The CUDA kernels' figures on one GPU: how near each is to its ceiling, to the vendor's library, or to its sister kernel.

    python3 scripts/gpu_figures.py ROOFTRACE COMPARE_KERNELS OUT [DEVICE]

ROOFTRACE is the release binary, COMPARE_KERNELS the release example of that name; neither needs Rust where it runs. Traces the roofs of
DEVICE (by default cuda:0), then times the kernels of each figure side by side, with all settings of their tunables, in interleaved rounds
of verified kernels, and prints ratios beside those wanted. OUT receives the trace and `figures.json`: medians, winning settings, ratios.
Exit code: 0 all figures were measured, reached or not; 1 some could not be, which says why; 2 usage.
"""

import json
import math
import pathlib
import subprocess
import sys

SQUARE = {size: {"m": size, "n": size, "k": size} for size in (4096, 8192)}
PROMPT = {"batch": 2, "heads": 16, "seq": 8192, "head_dim": 128, "causal": False}
# Extent and channels of ResNet-50's 3x3 layers, 64 images.
LAYERS = [(56, 64), (28, 128), (14, 256), (7, 512)]


def layer(extent, channels):
    return {"n": 64, "h": extent, "w": extent, "c_in": channels, "c_out": channels, "k": 3, "padding": 1}


def product(extent, channels):
    """The matrix product of the same m, n and k as that layer."""
    return {"m": 64 * extent * extent, "n": channels, "k": 9 * channels}


class Visit:
    """One device: its roofs, traced once, and kernels compared on request."""

    def __init__(self, rooftrace, compare, out, device):
        self.compare, self.device, self.log = compare, device, []
        trace = pathlib.Path(out) / "trace"
        subprocess.run([rooftrace, "trace", "--quiet", "--device", device, "--out", trace], check=True, stdout=subprocess.DEVNULL)
        shown = subprocess.run([rooftrace, "show", "--json", trace / "records.jsonl"], check=True, capture_output=True, text=True)
        self.view = json.loads(shown.stdout)
        self.roofs = {ceiling["name"]: ceiling["value"] for ceiling in self.view["ceilings"]}

    def best(self, op, problem, *kernels, cold=False):
        """Best rates (FLOP/s, compulsory bytes/s) of each kernel, VARIANT:PRECISION[:SETTINGS], over its settings."""
        command = [self.compare, "--json", *(["--cold"] if cold else []), self.device, op, json.dumps(problem)]
        ran = subprocess.run([*command, *kernels], capture_output=True, text=True, timeout=240)
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        self.log += [{"op": op, "problem": problem, "cold": cold, **line} for line in lines]
        best = []
        for kernel in kernels:
            name = " ".join(kernel.split(":")[:2])
            of = [line for line in lines if line["kernel"].startswith(name + " ")]
            if not of:
                raise RuntimeError(f"no {kernel} ran: {ran.stderr.strip()[-300:]}")
            fastest = min(of, key=lambda line: line["median_ns"])
            best.append((fastest["flops"] / fastest["median_ns"] * 1e9, fastest["bytes"] / fastest["median_ns"] * 1e9))
        return best

    def to_roof(self, op, problem, kernel, roof, cold=False):
        """Our rate over a ceiling, which is FLOP/s or, cold, bytes/s."""
        if roof not in self.roofs:
            raise RuntimeError(f"the trace has no ceiling {roof!r}")
        [(flops, transferred)] = self.best(op, problem, kernel, cold=cold)
        return (transferred if cold else flops) / self.roofs[roof]

    def to_library(self, op, problem, kernel, library, cold=False):
        """Our rate over a library's, side by side."""
        ours, theirs = self.best(op, problem, kernel, library, cold=cold)
        return ours[0] / theirs[0]


def figures(visit):
    """(what, wanted, how to measure it). Of several ratios the geometric mean is told, and each beside it."""

    def layers():
        ratios = []
        for shape in LAYERS:
            [ours] = visit.best("conv2d", layer(*shape), "implicit_mma:f16:*")
            [same] = visit.best("matmul", product(*shape), "mma:f16:*")
            ratios.append(ours[0] / same[0])
        return ratios

    yield "matmul pipelined f32 4096 / cuBLAS", 0.93, lambda: visit.to_library("matmul", SQUARE[4096], "pipelined:f32:*", "cublas:f32")
    for size, wanted in [(4096, 0.80), (8192, 0.84)]:
        yield f"matmul mma bf16 {size} / mma ceiling", wanted, lambda: visit.to_roof("matmul", SQUARE[size], "mma:bf16:*", "bf16 mma")
    yield "matmul wgmma bf16 8192 / cuBLASLt", 0.80, lambda: visit.to_library("matmul", SQUARE[8192], "wgmma:bf16:*", "cublaslt:bf16")
    for extent, channels in [(112, 64), (56, 128)]:
        name, shape = f"depthwise f16 64x{extent}x{extent}x{channels}", {"n": 64, "h": extent, "w": extent, "c": channels, "k": 3, "padding": 1}
        yield f"{name} cold / copy", 0.90, lambda: visit.to_roof("depthwise", shape, "window:f16:*", "dram copy", cold=True)
        yield f"{name} cold / cuDNN", 1.00, lambda: visit.to_library("depthwise", shape, "window:f16:*", "cudnn:f16", cold=True)
    yield "conv2d implicit_mma f16, four layers / matmul mma", 0.90, layers
    yield "attention flash_mma bf16 8k full / mma ceiling", 0.55, lambda: visit.to_roof("attention", PROMPT, "flash_mma:bf16:*", "bf16 mma")
    yield "attention flash_wgmma bf16 8k full / wgmma ceiling", 0.55, lambda: visit.to_roof("attention", PROMPT, "flash_wgmma:bf16:*", "bf16 wgmma")


def main(rooftrace, compare, out, device="cuda:0"):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    visit, results, missing = Visit(rooftrace, compare, out, device), [], 0
    for what, wanted, measure in figures(visit):
        try:
            measured = measure()
        except (RuntimeError, subprocess.TimeoutExpired) as why:
            print(f"{what:52}      not measured: {why}")
            results.append({"figure": what, "wanted": wanted, "why": str(why)})
            missing += 1
            continue
        ratios = measured if isinstance(measured, list) else [measured]
        mean = math.prod(ratios) ** (1 / len(ratios))
        each = f"  ({', '.join(f'{ratio:.2f}' for ratio in ratios)})" if len(ratios) > 1 else ""
        print(f"{what:52} {mean:5.2f}, wanted {wanted:.2f}{'' if mean >= wanted else '  short'}{each}", flush=True)
        results.append({"figure": what, "wanted": wanted, "measured": mean, "ratios": ratios})
    record = {"header": visit.view["header"], "roofs": visit.roofs, "figures": results, "kernels": visit.log}
    (pathlib.Path(out) / "figures.json").write_text(json.dumps(record, indent=1) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

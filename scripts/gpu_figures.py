"""The figures of CUDA on one GPU: its roofs beside what the chip can do, its kernels beside roofs, the vendor's libraries and their sister
kernels, and what a run takes.

    python3 scripts/gpu_figures.py ROOFTRACE COMPARE_KERNELS OUT [DEVICE [RUN LOG]]

ROOFTRACE is the release binary, COMPARE_KERNELS the release example of that name; neither needs Rust where it runs. RUN is the records.jsonl
of `rooftrace run` on DEVICE (by default cuda:0) with a new ROOFTRACE_CACHE, which is still named here, and LOG what it wrote to standard error.
Its roofs are taken; without RUN, or where it has none, they are traced, and what only a run shows is not measured. Kernels are verified and
timed side by side, in all settings, in interleaved rounds. OUT receives the traces and `figures.json`, written anew after every figure:
measured, wanted, met; roofs with their states, wrong outputs, all times, each command with its exit code and what it said.
Exit code: 0 all figures were measured, met or not; 1 some could not be, or an output was wrong; 2 usage.
"""

import json
import math
import operator
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

MEETS = {">": operator.gt, ">=": operator.ge, "<=": operator.le}
LONGEST = 240  # seconds of one command
SQUARE = {size: {"m": size, "n": size, "k": size} for size in (4096, 8192)}
PROMPT = {"batch": 2, "heads": 16, "seq": 8192, "head_dim": 128, "causal": False}
# Extent and channels of ResNet-50's 3x3 layers, 64 images.
LAYERS = [(56, 64), (28, 128), (14, 256), (7, 512)]


def layer(extent, channels):
    return {"n": 64, "h": extent, "w": extent, "c_in": channels, "c_out": channels, "k": 3, "padding": 1}


def product(extent, channels):
    """The matrix product of the same m, n and k as that layer."""
    return {"m": 64 * extent * extent, "n": channels, "k": 9 * channels}


def objects(text):
    """One a line; what ended early may have cut the last."""
    lines = text.splitlines()
    for at, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            if at < len(lines):
                raise


def compiling(log):
    """Seconds that a run's stages of compiling took, from the times before the lines of its log."""
    stages = re.findall(r"^ *([\d.]+) s  (.*)$", log, re.MULTILINE)
    took = [float(after) - float(at) for (at, stage), (after, _) in zip(stages, stages[1:]) if stage.startswith("compiling ")]
    if not took:
        raise RuntimeError("no log tells a stage of compiling")
    return sum(took)


class Visit:
    """One device: the records of its roofs, and kernels compared on request."""

    def __init__(self, rooftrace, compare, out, device="cuda:0", run=None, log=None):
        self.rooftrace, self.compare, self.out, self.device = rooftrace, compare, pathlib.Path(out), device
        self.log = pathlib.Path(log).read_text() if log else ""
        self.commands, self.kernels, self.wrong = [], [], []
        self.view, self.records = {"header": None, "ceilings": [], "rows": [], "ramp": []}, []
        if not (run and self.look(pathlib.Path(run))):
            self.look(self.trace("trace")[0])
        self.roofs = {ceiling["name"]: ceiling for ceiling in self.view["ceilings"]}

    def command(self, *words):
        """Runs it and keeps how it ended: where that is badly, what it wrote may still be good."""
        begun, words = time.monotonic(), [str(word) for word in words]
        try:
            ran = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            ran = subprocess.CompletedProcess(words, None, "", f"ended after {LONGEST} s")
        seconds, said = round(time.monotonic() - begun, 1), ran.stderr.splitlines()
        self.commands.append({"command": words, "exit": ran.returncode, "seconds": seconds, "stderr": said})
        if ran.returncode != 0:
            print(f"exit code {ran.returncode} of {' '.join(words[:3])}: {' / '.join(said[-2:])}", flush=True)
        return ran

    def trace(self, name, *more):
        """Traces the roofs; the file of its records, which may be missing, and its log."""
        file = self.out / name / "records.jsonl"
        file.unlink(missing_ok=True)
        return file, self.command(self.rooftrace, "trace", "--device", self.device, "--out", file.parent, *more).stderr

    def look(self, file):
        """Takes the records and the derived view of a file, if it has roofs."""
        shown = self.command(self.rooftrace, "show", "--json", file)
        view = json.loads(shown.stdout) if shown.returncode == 0 else {"ceilings": []}
        if view["ceilings"]:
            self.view, self.records = view, list(objects(file.read_text()))
            wrong = [record for record in self.records if record.get("state") == "wrong"]
            self.wrong += [{key: of[key] for key in ("op", "problem", "variant", "precision", "why", "reasons") if key in of} for of in wrong]
        else:
            print(f"{file} has no roofs", flush=True)
        return view["ceilings"]

    def roof(self, name):
        """A ceiling's value, the measurements that it stands on, and what its state adds to a figure."""
        if name not in self.roofs:
            raise RuntimeError(f"there is no roof {name!r}")
        [ids] = [record["from"] for record in self.records if record["record"] == "ceiling" and record["name"] == name]
        behind = [record for record in self.records if record["record"] == "measurement" and record["id"] in ids]
        state = self.roofs[name]["state"]
        return self.roofs[name]["value"], behind, "" if state == "ok" else f", roof {state}"

    def memory(self, direction):
        """TB/s of DRAM; it does not count if an array was smaller than a GiB."""
        value, behind, state = self.roof(f"dram {direction}")
        gib = min(4 * m["problem"]["elements"] for m in behind) / 2**30
        return value / 1e12, f"TB/s, arrays of {gib:.2f} GiB{'' if gib >= 1 else ' where 1 is wanted'}{state}", gib >= 1

    def of_chip(self, name, each):
        """A compute roof over what all multiprocessors do at `each` FLOP a cycle, at the clock seen right after its samples."""
        value, behind, state = self.roof(name)
        clocks = [m["telemetry"]["after"]["sm_mhz"] for m in behind if "sm_mhz" in m.get("telemetry", {}).get("after", {})]
        if not clocks:
            raise RuntimeError("its records tell no clock, as NVML was not read")
        units, clock = self.view["header"]["device"]["compute_units"], statistics.median(clocks)
        seen = f"{units} x {each} at {clock:.0f} MHz, seen {min(clocks)} to {max(clocks)}"
        return value / (units * each * clock * 1e6), f"{value / 1e12:.1f} TFLOP/s of {seen}{state}"

    def above(self):
        """Placed points above their roofs."""
        if not self.view["rows"]:
            raise RuntimeError("no run placed kernels")
        kernels, ramp = [[row for row in rows if row["above_roof"]] for rows in (self.view["rows"], self.view["ramp"])]
        names = [f"{row['op']}/{row['variant']} {row['precision']} {row['label']}" for row in kernels]
        points = [f"{len(self.view['rows'])} kernels", *names, f"{len(ramp)} of {len(self.view['ramp'])} points of the ramp"]
        return len(kernels) + len(ramp), ", ".join(points)

    def lasted(self):
        """Seconds of the run; they do not count if something was left out."""
        ends = [record for record in self.records if record["record"] == "end"]
        if not ends or self.view["header"]["settings"]["command"] != "run":
            raise RuntimeError("no run came to its end")
        budget = (self.view["header"]["settings"].get("budget_ns") or 0) / 1e9
        return ends[0]["seconds"], f"s, exit code {ends[0]['status']}{f', budget {budget:.0f}' if budget else ''}", ends[0]["status"] == 0

    def cached(self):
        """Seconds of compiling once the cache is filled: stages, and looking up what each probe of a short trace loads."""
        file, log = self.trace("cached", "--budget", "20s")
        measured = [record for record in objects(file.read_text()) if record["record"] == "measurement"]
        found = {(m["source_hash"], m["precision"], str(m["tunables"])): m["facts"].get("compile_ns", 0) for m in measured}
        return compiling(log) + sum(found.values()) / 1e9, f"s, {len(found)} probes loaded"

    def best(self, op, problem, *kernels, cold=False):
        """Best rates (FLOP/s, compulsory bytes/s) of each kernel, VARIANT:PRECISION[:SETTINGS], over its settings."""
        ran = self.command(self.compare, "--json", *(["--cold"] if cold else []), self.device, op, json.dumps(problem), *kernels)
        wrong = [line for line in ran.stderr.splitlines() if "wrong output" in line]
        print("".join(f"WRONG {op} {line}\n" for line in wrong), end="", flush=True)
        self.wrong += [{"op": op, "problem": problem, "why": line} for line in wrong]
        lines = list(objects(ran.stdout))
        self.kernels += [{"op": op, "problem": problem, "cold": cold, **line} for line in lines]
        best = []
        for kernel in kernels:
            name = " ".join(kernel.split(":")[:2])
            of = [line for line in lines if line["kernel"].startswith(name + " ")]
            if not of:
                raise RuntimeError(f"no {kernel} ran: {' / '.join(ran.stderr.splitlines())[-300:]}")
            fastest = min(of, key=lambda line: line["median_ns"])
            best.append((fastest["flops"] / fastest["median_ns"] * 1e9, fastest["bytes"] / fastest["median_ns"] * 1e9))
        return best

    def to_roof(self, op, problem, kernel, name, cold=False):
        """Our rate over a ceiling, which is FLOP/s or, cold, bytes/s."""
        roof, _, state = self.roof(name)
        rate = self.best(op, problem, kernel, cold=cold)[0][cold]
        return rate / roof, f"{rate / 1e12:.2f} of {roof / 1e12:.2f} {'TB/s' if cold else 'TFLOP/s'}{state}"

    def to_library(self, op, problem, kernel, library, cold=False):
        """Our rate over a library's, side by side."""
        (ours, _), (theirs, _) = self.best(op, problem, kernel, library, cold=cold)
        return ours / theirs, f"{ours / 1e12:.2f} of {theirs / 1e12:.2f} TFLOP/s"

    def layers(self):
        """Each layer's rate over that of our matrix product: the geometric mean, and the worst."""
        pairs = [(self.best("conv2d", layer(*of), "implicit_mma:f16:*"), self.best("matmul", product(*of), "mma:f16:*")) for of in LAYERS]
        ratios = [ours / same for [(ours, _)], [(same, _)] in pairs]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        return [(math.prod(ratios) ** (1 / len(ratios)), each), (min(ratios), each)]


def figures(visit):
    """Figures that are measured together, (what, how it relates to what is wanted, that), and how: (value, note[, whether it counts]) of each."""

    def one(what, relation, wanted, measure):
        return [(what, relation, wanted)], lambda: [measure()]

    roof, library = visit.to_roof, visit.to_library
    for direction, relation, wanted in [("copy", ">", 4.03), ("read", ">=", 4.2), ("write", ">=", 4.0)]:
        yield one(f"DRAM {direction}", relation, wanted, lambda: visit.memory(direction))
    yield one("fma f32 / units x 256 x clock", ">=", 0.95, lambda: visit.of_chip("f32 vector", 256))
    yield one("wgmma bf16 / units x 4096 x clock", ">=", 0.95, lambda: visit.of_chip("bf16 wgmma", 4096))
    yield one("points above their roof", "<=", 0, visit.above)
    yield one("run", "<=", 120, visit.lasted)
    yield one("compiling, cold", "<=", 20, lambda: (compiling(visit.log), "s in its stages of the run"))
    yield one("matmul pipelined f32 4096 / cuBLAS", ">=", 0.93, lambda: library("matmul", SQUARE[4096], "pipelined:f32:*", "cublas:f32"))
    for size, wanted in [(4096, 0.80), (8192, 0.84)]:
        yield one(f"matmul mma bf16 {size} / mma roof", ">=", wanted, lambda: roof("matmul", SQUARE[size], "mma:bf16:*", "bf16 mma"))
    yield one("matmul wgmma bf16 8192 / cuBLASLt", ">=", 0.80, lambda: library("matmul", SQUARE[8192], "wgmma:bf16:*", "cublaslt:bf16"))
    for extent, channels in [(112, 64), (56, 128)]:
        name, shape = f"depthwise f16 {extent}x{extent}x{channels}", {"n": 64, "h": extent, "w": extent, "c": channels, "k": 3, "padding": 1}
        yield one(f"{name} cold / copy", ">=", 0.90, lambda: roof("depthwise", shape, "window:f16:*", "dram copy", cold=True))
        yield one(f"{name} cold / cuDNN", ">=", 1.00, lambda: library("depthwise", shape, "window:f16:*", "cudnn:f16", cold=True))
    yield [("conv2d implicit_mma f16 / matmul mma, mean", ">=", 0.90), ("the same, worst of four layers", ">=", 0.80)], visit.layers
    yield one("attention flash_mma bf16 8k / mma roof", ">=", 0.55, lambda: roof("attention", PROMPT, "flash_mma:bf16:*", "bf16 mma"))
    yield one("attention flash_wgmma bf16 8k / wgmma roof", ">=", 0.55, lambda: roof("attention", PROMPT, "flash_wgmma:bf16:*", "bf16 wgmma"))
    yield one("compiling, cached", "<=", 2, visit.cached)


def save(visit, results):
    """Replaces the file as a whole, so that an end at any moment leaves a good one."""
    record = {"header": visit.view["header"], "ceilings": visit.view["ceilings"], "figures": results, "wrong": visit.wrong}
    part = visit.out / "figures.part"
    part.write_text(json.dumps({**record, "kernels": visit.kernels, "commands": visit.commands}, indent=1) + "\n")
    part.replace(visit.out / "figures.json")


def main(rooftrace, compare, out, *more):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    visit, results = Visit(rooftrace, compare, out, *more), []
    for named, measure in figures(visit):
        try:
            told = measure()
        except (RuntimeError, ValueError, LookupError, OSError) as why:
            told = [(None, repr(why) if isinstance(why, LookupError) else str(why))] * len(named)
        for (what, relation, wanted), (value, note, *counts) in zip(named, told):
            met = None if value is None else MEETS[relation](value, wanted) and all(counts)
            measured = "not measured  " if value is None else f"{value:7.2f}  {'met  ' if met else 'SHORT'}"
            print(f"{what:43} {measured}  wanted {relation:2} {wanted:6.2f}  ({note})", flush=True)
            results.append({"figure": what, "measured": value, "relation": relation, "wanted": wanted, "met": met, "note": note})
        save(visit, results)
    count = {word: sum(result["met"] is met for result in results) for word, met in [("met", True), ("short", False), ("not measured", None)]}
    print(f"figures: {', '.join(f'{n} {word}' for word, n in count.items())}; {len(visit.wrong)} wrong outputs")
    return 1 if count["not measured"] or visit.wrong else 0


if __name__ == "__main__":
    absent = [program for program in sys.argv[1:3] if not os.access(program, os.X_OK)]
    if len(sys.argv) not in (4, 5, 7) or absent:
        print(f"gpu_figures: there is no program {absent[0]}; build both with --release --examples" if absent else __doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))

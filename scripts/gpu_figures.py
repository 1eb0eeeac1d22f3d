"""The figures of CUDA on one GPU: its roofs beside what the chip can do, its kernels beside roofs, the vendor's libraries and their sister
kernels, and what a run takes. On any other device a dry run: small problems, kernels that it has, nothing to be met.

    python3 scripts/gpu_figures.py ROOFTRACE COMPARE_KERNELS OUT [DEVICE [RUN [LOG]]]

ROOFTRACE is the release binary, COMPARE_KERNELS the release example of that name; neither needs Rust where it runs. RUN is the records.jsonl
of `rooftrace run` on DEVICE (by default cuda:0). Its roofs are taken; without RUN, or where it has none, they are traced, and what only a run
shows is not measured. LOG is what that run wrote to standard error, if it began with a new ROOFTRACE_CACHE, which is still named here. Kernels
are verified and timed side by side, in all settings, in interleaved rounds. Where the environment's SECONDS_ALLOWED tells how long all of it may
take, what is then left is not measured, and says so. OUT receives the roofs and `figures.json`, written anew after every figure: measured,
wanted, met; roofs with their states, wrong outputs, all times, each command with its exit code and what it said.
Exit code: 0 all figures were measured, met or not, or it was dry; 1 some could not be, or an output was wrong; 2 usage.
"""

import json
import operator
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

MEETS = {">": operator.gt, ">=": operator.ge, "<=": operator.le}
# Seconds of one command at most.
LONGEST = {"compare": 60, "trace": 100, "run": 60, "show": 30}
ENDS = time.monotonic() + float(os.environ.get("SECONDS_ALLOWED") or "inf")
# What is compared: extents of square products; images, extents and channels of 3x3 filters and layers (ResNet-50's on CUDA); a prompt.
CUDA = {
    "squares": (4096, 8192),
    "images": 64,
    "filters": [(112, 64), (56, 128)],
    "layers": [(56, 64), (28, 128), (14, 256), (7, 512)],
    "prompt": {"batch": 2, "heads": 16, "seq": 8192, "head_dim": 128, "causal": False},
    "filter": ["window:f16:*", "vectorized:f16:*"],
    "layer": ("implicit_mma:f16:*", "mma:f16:*"),
    "attention": [("flash_mma:bf16:*", "bf16 mma"), ("flash_wgmma:bf16:*", "bf16 wgmma")],
}
DRY = {
    "squares": (128, 256),
    "images": 1,
    "filters": [(28, 64), (14, 128)],
    "layers": [(14, 32), (7, 64)],
    "prompt": {"batch": 1, "heads": 2, "seq": 256, "head_dim": 64, "causal": False},
    "filter": ["window:f32:*"],
    "layer": ("implicit:f32", "packed:f32"),
    "attention": [("flash:f32", "f32 vector"), ("flash_wgmma:bf16:*", "bf16 wgmma")],
}


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


def loaded(records):
    """Seconds that compiling, or reading what was compiled, took for each kernel and setting that these records measured."""
    made = [record for record in records if "compile_ns" in record.get("facts", {})]
    return {(m["source_hash"], m["precision"], str(m["tunables"])): m["facts"]["compile_ns"] / 1e9 for m in made}


def best(lines, *kernels):
    """The fastest line of any of these kernels, VARIANT:PRECISION[:SETTINGS], over their settings."""
    names = [tuple(kernel.split(":")[:2]) for kernel in kernels]
    of = [line for line in lines if (line["variant"], line["precision"]) in names]
    return min(of, key=lambda line: line["median_ns"], default=None)


def rate(line, cold=False):
    """FLOP/s or, cold, compulsory bytes/s."""
    return line["bytes_compulsory" if cold else "flops"] / line["median_ns"] * 1e9


def within(limit, words):
    """How a command ended: on its own, or else, with all that it started, cut after so many seconds, its exit code none. It is asked first, as a
    run then saves what it has."""
    if limit < 3:
        return subprocess.CompletedProcess(words, None, "", "no time left")
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True) as process:
        try:
            for seconds, then in [(limit, signal.SIGINT), (5, signal.SIGKILL), (None, None)]:
                try:
                    out, told = process.communicate(timeout=seconds)
                    break
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, then)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    ended = seconds == limit
    return subprocess.CompletedProcess(words, process.returncode if ended else None, out, told + ("" if ended else f"cut after {limit:.0f} s"))


class Visit:
    """One device: the records of its roofs, and kernels compared on request."""

    def __init__(self, rooftrace, compare, out, device="cuda:0", run=None, log=None):
        self.rooftrace, self.compare, self.out, self.device = rooftrace, compare, pathlib.Path(out), device
        self.dry = not device.startswith("cuda")
        self.of = DRY if self.dry else CUDA
        self.log = pathlib.Path(log).read_text() if log else ""
        self.commands, self.kernels, self.wrong, self.compared = [], [], [], {}
        self.view, self.records = {"header": None, "ceilings": [], "rows": [], "ramp": []}, []
        if not (run and self.look(pathlib.Path(run))):
            self.look(self.measure("trace", "trace")[0])
        self.roofs = {ceiling["name"]: ceiling for ceiling in self.view["ceilings"]}

    def command(self, kind, *words):
        """Runs it in what time it and the visit have, and keeps how it ended: where that is badly, what it wrote may still be good."""
        begun, words = time.monotonic(), [str(word) for word in words]
        ran = within(min(LONGEST[kind], ENDS - begun), words)
        seconds, said = round(time.monotonic() - begun, 1), ran.stderr.splitlines()
        self.commands.append({"command": words, "exit": ran.returncode, "seconds": seconds, "stderr": said})
        if ran.returncode != 0 and seconds > 0:
            print(f"exit code {ran.returncode} of {' '.join(words[:3])}: {' / '.join(said[-2:])}", flush=True)
        return ran

    def measure(self, kind, name, *more):
        """Traces the roofs, or runs; the file of its records, which may be missing, and its log."""
        file = self.out / name / "records.jsonl"
        file.unlink(missing_ok=True)
        return file, self.command(kind, self.rooftrace, kind, "--device", self.device, "--out", file.parent, *more).stderr

    def look(self, file):
        """Takes the records and the derived view of a file, if it has roofs."""
        shown = self.command("show", self.rooftrace, "show", "--json", file)
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
        # Where stores can be of several kinds, as on the host, the name goes on with that of the fastest.
        name = next((roof for roof in self.roofs if roof == name or roof.startswith(f"{name} (")), None) or name
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
        """What a compute roof's probe does over what all multiprocessors do at `each` FLOP a cycle: of each measurement behind it the median rate
        at that measurement's own clock, as the clock falls while power is capped. By the clock that the device counted, else NVML's."""
        value, behind, state = self.roof(name)
        units = self.view["header"]["device"]["compute_units"]
        clocks = {
            "counted by the device": lambda m: m.get("telemetry", {}).get("core_mhz"),
            "seen by NVML at its end": lambda m: m.get("telemetry", {}).get("after", {}).get("sm_mhz"),
        }
        ratios, told = {}, []
        for whose, clock in clocks.items():
            timed = [(m["flops"] * m["launches"] / statistics.median(m["samples_ns"]) * 1e9, clock(m)) for m in behind if clock(m)]
            if timed:
                ratios[whose] = statistics.median(rate / (units * each * mhz * 1e6) for rate, mhz in timed)
                seen = [mhz for _, mhz in timed]
                told.append(f"{statistics.median(seen):.0f} MHz {whose} ({min(seen)} to {max(seen)}): {ratios[whose]:.3f}")
        if not ratios:
            raise RuntimeError("its records tell no clock, by the device's own counters or NVML")
        possible = [ratio for ratio in ratios.values() if ratio <= 1.02]
        odd = "" if len(possible) == len(ratios) else "; the clock seen cannot be the one that was run at"
        note = f"roof {value / 1e12:.1f} TFLOP/s, {units} x {each} a cycle, medians at {', '.join(told)}{odd}{state}"
        return [*possible, *ratios.values()][0], note, bool(possible)

    def ended(self):
        """The end of the run."""
        ends = [record for record in self.records if record["record"] == "end"]
        if not ends or self.view["header"]["settings"]["command"] != "run":
            raise RuntimeError("no run came to its end")
        return ends[0]

    def above(self):
        """Placed points above their roofs; none of a run with holes counts, as some are missing."""
        if not self.view["rows"]:
            raise RuntimeError("no run placed kernels")
        kernels, ramp = [[row for row in rows if row["above_roof"]] for rows in (self.view["rows"], self.view["ramp"])]
        names = [f"{row['op']}/{row['variant']} {row['precision']} {row['label']}" for row in kernels]
        status = self.ended()["status"]
        missing = [] if status == 0 else [f"points are missing: the run ended with {status}"]
        points = [f"{len(self.view['rows'])} kernels", *names, f"{len(ramp)} of {len(self.view['ramp'])} points of the ramp", *missing]
        return len(kernels) + len(ramp), ", ".join(points), not missing

    def lasted(self):
        """Seconds of the run; they do not count if something was left out."""
        end, budget = self.ended(), (self.view["header"]["settings"].get("budget_ns") or 0) / 1e9
        return end["seconds"], f"s, exit code {end['status']}{f', budget {budget:.0f}' if budget else ''}", end["status"] == 0

    def cached(self):
        """Seconds of compiling once the cache is filled: stages of a second, small run, and looking up each kernel and setting that it loads;
        those that only the first run loaded at the mean of these."""
        compiling(self.log)
        file, log = self.measure("run", "cached", "--size", "small", "--budget", "25s")
        first, again = loaded(self.records), loaded(objects(file.read_text())) if file.exists() else {}
        if not again:
            raise RuntimeError(f"a second run loaded nothing: {' / '.join(log.splitlines()[-2:])}")
        missed = len(first.keys() - again.keys())
        looked_up = sum(again.values()) * (1 + missed / len(again))
        return compiling(log) + looked_up, f"s, {len(again)} settings looked up, {missed} more at their mean"

    def compares(self, problems, cold=False):
        """Lines of all settings of kernels, of one or more problems in the same rounds, each ((op, problem), kernels). Measured once."""
        words = []
        for (op, problem), kernels in problems:
            words += ["--also"] * bool(words) + [op, json.dumps(problem), *kernels]
        key = (cold, *words)
        if key not in self.compared:
            ran = self.command("compare", self.compare, "--json", *(["--cold"] if cold else []), self.device, *words)
            wrong = [line for line in ran.stderr.splitlines() if "wrong output" in line]
            print("".join(f"WRONG {line}\n" for line in wrong), end="", flush=True)
            self.wrong += [{"why": line} for line in wrong]
            lines = list(objects(ran.stdout))
            self.kernels += lines
            # The best of settings that were cut short would be none.
            why = " / ".join(ran.stderr.splitlines())[-300:]
            self.compared[key] = (lines if ran.returncode in (0, 4) else [], why)
        return self.compared[key]

    def fastest(self, op, problem, beside, *kernels, cold=False):
        """The fastest of these kernels of a problem, measured with those beside them."""
        lines, why = self.compares([((op, problem), beside)], cold)
        line = best(lines, *kernels)
        if line is None:
            raise RuntimeError(f"no {' or '.join(kernels)} ran: {why}")
        return line

    def to_roof(self, op, problem, beside, kernels, name, cold=False):
        """Our rate over a ceiling, which is FLOP/s or, cold, bytes/s."""
        roof, _, state = self.roof(name)
        line = self.fastest(op, problem, beside, *kernels, cold=cold)
        ours, unit = rate(line, cold), "TB/s" if cold else "TFLOP/s"
        return ours / roof, f"{ours / 1e12:.2f} of {roof / 1e12:.2f} {unit}, {line['variant']}{state}"

    def to_library(self, op, problem, beside, kernels, library, cold=False):
        """Our rate over a library's, side by side."""
        ours, theirs = [self.fastest(op, problem, beside, *of, cold=cold) for of in (kernels, [library])]
        return rate(ours) / rate(theirs), f"{rate(ours) / 1e12:.2f} of {rate(theirs) / 1e12:.2f} TFLOP/s, {ours['variant']}"

    def layers(self, of_all):
        """Each layer's rate over that of our matrix product of the same m, n and k, in the same rounds: the mean or the worst of all."""
        images, (convolution, multiplication) = self.of["images"], self.of["layer"]
        ratios = []
        for extent, channels in self.of["layers"]:
            layer = {"n": images, "h": extent, "w": extent, "c_in": channels, "c_out": channels, "k": 3, "padding": 1}
            product = {"m": images * extent * extent, "n": channels, "k": 9 * channels}
            lines, why = self.compares([(("conv2d", layer), [convolution]), (("matmul", product), [multiplication])])
            pair = best(lines, convolution), best(lines, multiplication)
            if None in pair:
                raise RuntimeError(f"no {convolution} or {multiplication} ran: {why}")
            ratios.append(rate(pair[0]) / rate(pair[1]))
        return of_all(ratios), ", ".join(f"{ratio:.2f}" for ratio in ratios)


def figures(visit):
    """What, how it relates to what is wanted, that, and how it is measured: value, note[, whether it counts]."""
    of, roof, library = visit.of, visit.to_roof, visit.to_library
    small, large = of["squares"]
    square = {size: {"m": size, "n": size, "k": size} for size in of["squares"]}

    for direction, relation, wanted in [("copy", ">", 4.03), ("read", ">=", 4.2), ("write", ">=", 4.0)]:
        yield f"DRAM {direction}", relation, wanted, lambda: visit.memory(direction)
    yield "fma f32 / units x 256 x clock", ">=", 0.95, lambda: visit.of_chip("f32 vector", 256)
    yield "wgmma bf16 / units x 4096 x clock", ">=", 0.95, lambda: visit.of_chip("bf16 wgmma", 4096)
    yield "points above their roof", "<=", 0, visit.above
    yield "run", "<=", 120, visit.lasted
    yield "compiling, cold", "<=", 20, lambda: (compiling(visit.log), "s in its stages of the run")

    def product(kernel, size, library):
        beside = [kernel, library]
        return lambda: visit.to_library("matmul", square[size], beside, [kernel], library)

    yield f"matmul pipelined f32 {small} / cuBLAS", ">=", 0.93, product("pipelined:f32:*", small, "cublas:f32")
    for size, wanted in [(small, 0.80), (large, 0.84)]:
        kernels = ["mma:bf16:*"]
        yield f"matmul mma bf16 {size} / mma roof", ">=", wanted, lambda: roof("matmul", square[size], kernels, kernels, "bf16 mma")
    for what, wanted in [("", 0.80), (", the goal", 0.95)]:
        yield f"matmul wgmma bf16 {large} / cuBLASLt{what}", ">=", wanted, product("wgmma:bf16:*", large, "cublaslt:bf16")
    ours = of["filter"]
    precision = ours[0].split(":")[1]
    for extent, channels in of["filters"]:
        beside, shape = [*ours, f"cudnn:{precision}"], {"n": of["images"], "h": extent, "w": extent, "c": channels, "k": 3, "padding": 1}
        name = f"depthwise {precision} {extent}x{extent}x{channels} cold"
        yield f"{name} / copy", ">=", 0.90, lambda: roof("depthwise", shape, beside, ours, "dram copy", cold=True)
        yield f"{name} / cuDNN", ">=", 1.00, lambda: library("depthwise", shape, beside, ours, beside[-1], cold=True)
    convolution, multiplication = [" ".join(kernel.split(":")[:2]) for kernel in of["layer"]]
    yield f"conv2d {convolution} / matmul {multiplication}, mean", ">=", 0.90, lambda: visit.layers(statistics.geometric_mean)
    yield f"the same, worst of {len(of['layers'])} layers", ">=", 0.80, lambda: visit.layers(min)
    for kernel, ceiling in of["attention"]:
        name = f"attention {' '.join(kernel.split(':')[:2])} {of['prompt']['seq']} / {ceiling} roof"
        yield name, ">=", 0.55, lambda: roof("attention", of["prompt"], [kernel], [kernel], ceiling)
    yield "compiling, cached", "<=", 2, visit.cached


def save(visit, results):
    """Replaces the file as a whole, so that an end at any moment leaves a good one."""
    record = {"device": visit.device, "dry": visit.dry, "header": visit.view["header"], "ceilings": visit.view["ceilings"]}
    record |= {"figures": results, "wrong": visit.wrong, "kernels": visit.kernels, "commands": visit.commands}
    part = visit.out / "figures.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(visit.out / "figures.json")


def main(rooftrace, compare, out, *more):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    visit, results = Visit(rooftrace, compare, out, *more), []
    if visit.dry:
        print(f"A dry run on {visit.device}: what follows tells nothing of CUDA.")
    for what, relation, wanted, measure in figures(visit):
        try:
            value, note, *counts = measure()
        except (RuntimeError, ValueError, LookupError, OSError) as why:
            value, note, counts = None, repr(why) if isinstance(why, LookupError) else str(why), []
        result = {"figure": what, "measured": value, "relation": relation, "wanted": wanted, "met": None, "note": note}
        if visit.dry:
            # Nothing that another device does may look as if it met a figure of CUDA.
            result |= {"figure": f"{visit.device}: {what}", "relation": None, "wanted": None}
            word, aim = "dry", ""
        else:
            result["met"] = None if value is None else MEETS[relation](value, wanted) and all(counts)
            word, aim = "met" if result["met"] else "SHORT", f"  wanted {relation:2} {wanted:6.2f}"
        measured = "not measured  " if value is None else f"{value:7.2f}  {word:5}"
        print(f"{result['figure']:50} {measured}{aim}  ({note})", flush=True)
        results.append(result)
        save(visit, results)
    missing = sum(result["measured"] is None for result in results)
    judged = "" if visit.dry else f"{sum(r['met'] is True for r in results)} met, {sum(r['met'] is False for r in results)} short, "
    print(f"figures: {judged}{len(results) - missing} measured, {missing} not measured; {len(visit.wrong)} wrong outputs")
    return 1 if missing and not visit.dry or visit.wrong else 0


if __name__ == "__main__":
    absent = [program for program in sys.argv[1:3] if not os.access(program, os.X_OK)]
    if not 4 <= len(sys.argv) <= 7 or absent:
        print(f"gpu_figures: there is no program {absent[0]}; build both with --release --examples" if absent else __doc__, file=sys.stderr)
        sys.exit(2)
    # Asked to end, it ends what it started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(*sys.argv[1:]))

"""Interleaved pairs of two programs that answer one line of standard input with one timing; see native-ceilings.sh."""

import json
import os
import statistics
import subprocess
import sys


class Program:
    """One side of a comparison: prints `ready WORK`, then a median and a least time in ns for every line it is sent."""

    def __init__(self, *command):
        self.command = [str(part) for part in command]
        # OpenMP's threads must not spin on a CPU while the other side is asked.
        os.environ["OMP_WAIT_POLICY"] = "passive"
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        word, work = self.process.stdout.readline().split()
        assert word == "ready", word
        self.work = float(work)

    def rate(self):
        """Work per ns, from the median time of one request."""
        self.process.stdin.write("\n")
        return self.work / float(self.process.stdout.readline().split()[0])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def llc_bytes():
    sizes = [1 << 20]
    folder = "/sys/devices/system/cpu/cpu0/cache"
    for index in os.listdir(folder) if os.path.isdir(folder) else []:
        path = f"{folder}/{index}/size"
        if os.path.exists(path):
            text = open(path).read().strip()
            sizes.append(int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1], 0))
    return max(sizes)


def cpu_name():
    try:
        return next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def best(programs):
    """The fastest of several candidates over three requests each, in turn; the others are ended."""
    rates = [[] for _ in programs]
    for _ in range(3):
        for program, seen in zip(programs, rates):
            seen.append(program.rate())
    order = sorted(range(len(programs)), key=lambda i: -statistics.median(rates[i]))
    for i in order[1:]:
        programs[i].end()
    return programs[order[0]]


def main():
    build, rust, out, pairs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    workers = len(os.sched_getaffinity(0))
    llc = llc_bytes()
    # Each array is at least four times the last-level cache.
    elements = -(-4 * llc // 4 // 4096) * 4096
    lanes = 16 if "avx512f" in open("/proc/cpuinfo").read() else 8

    def host(op, variant, fields, tuned, launches, sets=1):
        return Program(rust, op, variant, "f32", json.dumps(fields), json.dumps(tuned), launches, sets)

    chains = 12 * lanes * workers * 16

    # Some milliseconds a launch, so that waking threads does not count.
    trips, steps = 1024, 128
    flops = 2.0 * chains * trips * steps

    def fma(n, launches=4):
        return host("fma", "chains", {"elements": chains, "trips": trips, "steps": steps}, {"CHAINS": n}, launches)

    def winner(size):
        # Samples about as long as the product's, so that what else the machine does hits both alike.
        return lambda: best([fma(n, max(1, round(2.0 * size**3 / flops))) for n in (12, 8, 6, 4)])

    def stream(kind, store, n, sets=1):
        fields = {"kind": kind, "elements": n, "passes": 1, "parts": workers}
        return best([host("stream", "linear", fields, {"STORE": store, "UNROLL": unroll}, 1, sets) for unroll in (2, 4, 8)])

    def copy_ceiling():
        n, sets = 16 * 112 * 112 * 64, 3
        return best([stream("copy", store, n, sets) for store in (0, 1)])

    def matmul(size, sets):
        fields = {"m": size, "n": size, "k": size}
        return best([host("matmul", "packed", fields, {"KC": depth}, sets, sets) for depth in (256, 384, 512, 1024)])

    def cold(size):
        return max(2, -(-2 * llc // (12 * size * size)) + 1)

    def depthwise():
        program = host("depthwise", "window", {"n": 16, "h": 112, "w": 112, "c": 64}, {}, 1, 3)
        program.work = 8.0 * 16 * 112 * 112 * 64  # bytes, as the copy's
        return program

    c_fma = lambda: Program(f"{build}/fma", chains, trips, steps, 4)
    comparisons = [
        ("fma f32 / C intrinsics, 12 chains", lambda: fma(12), c_fma, 0.97, "GFLOP/s"),
        ("triad ordinary / C STREAM", lambda: stream("triad", 0, elements), lambda: Program(f"{build}/stream", elements, 1), 0.97, "GB/s"),
        ("triad non-temporal / C streaming", lambda: stream("triad", 1, elements), lambda: Program(f"{build}/stream-streaming", elements, 1), 0.97, "GB/s"),
        ("matmul 1024 warm / fma winner", lambda: matmul(1024, 1), winner(1024), 0.80, "GFLOP/s"),
        ("matmul 1024 cold / fma winner", lambda: matmul(1024, cold(1024)), winner(1024 * cold(1024) ** (1 / 3)), None, "GFLOP/s"),
        ("matmul 2048 warm / fma winner", lambda: matmul(2048, 1), winner(2048), 0.85, "GFLOP/s"),
        ("matmul 2048 cold / fma winner", lambda: matmul(2048, cold(2048)), winner(2048 * cold(2048) ** (1 / 3)), None, "GFLOP/s"),
        ("depthwise 3x3 cold / copy ceiling", depthwise, copy_ceiling, 0.85, "GB/s"),
    ]
    rows = []
    print(f"{cpu_name()}, {workers} threads, arrays of {elements * 4 >> 20} MiB; medians of {pairs} interleaved pairs")
    print(f"{'comparison':36} {'ratio':>6} {'least':>6} {'most':>6} {'wanted':>6}   rust / other")
    for name, ours, other, wanted, unit in comparisons:
        # The candidates of a search do not run beside the other side's arrays longer than they must.
        a, b = ours(), other()
        rates = []
        for pair in range(pairs):
            # Who goes first alternates.
            first, second = (a, b) if pair % 2 == 0 else (b, a)
            one, two = first.rate(), second.rate()
            rates.append((one, two) if pair % 2 == 0 else (two, one))
        a.end(), b.end()
        ratios = [x / y for x, y in rates]
        x, y = statistics.median(r[0] for r in rates), statistics.median(r[1] for r in rates)
        shown = "" if wanted is None else f"{wanted:.2f}"
        print(f"{name:36} {statistics.median(ratios):6.3f} {min(ratios):6.3f} {max(ratios):6.3f} {shown:>6}   {x:.1f} / {y:.1f} {unit}", flush=True)
        rows.append({"comparison": name, "ratio": statistics.median(ratios), "wanted": wanted, "ratios": ratios, "unit": unit,
                     "rust": [r[0] for r in rates], "other": [r[1] for r in rates]})
    if out:
        with open(out, "w") as file:
            json.dump({"processor": cpu_name(), "threads": workers, "llc_bytes": llc, "pairs": pairs, "comparisons": rows}, file, indent=1)
            file.write("\n")


main()

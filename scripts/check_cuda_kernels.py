"""Compiles rendered CUDA sources to machine code for every architecture with NVRTC; needs no GPU and no driver.

usage: check_cuda_kernels.py FOLDER LIBFOLDER [--defaults | ONLY] [--update]
       check_cuda_kernels.py --self-test

FOLDER holds manifest.json and the sources (examples/render_kernels.rs); LIBFOLDER holds libnvrtc.so.*, and nvdisasm beside it. ONLY:
sources whose file names hold this; `--defaults`: every kernel in every precision, with its first tunables alone. Fails on an error, a
spill, local memory, a missing entry point, more registers than registers.txt allows (`--update` writes what was found into it) or than a
multiprocessor has for one group, more shared memory than the plan says, and on instructions that a source promises and its machine code
lacks. Kernels of matrix units are compiled for the architectures that have them. Machine code is read for those of READ: matrix
instructions, the width of accesses and pairs of f16 where they are promised, no local memory anywhere, few cycles beside the products
in the loops of matmul/mma and conv2d/implicit_mma, and exponentials beside the sums of attention/flash_wgmma. `--self-test` breaks each
promise and fails where nothing complains.
"""

import concurrent.futures
import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]
HAVE = {"mma": ARCHITECTURES[1:], "wgmma": ["sm_90a"]}
HAVE_FP8 = {"mma": ["sm_89", "sm_120"], "wgmma": ["sm_90a"]}
# sm_80 has the first asynchronous copies, and sm_86 and sm_89 much the same code; sm_90a alone has wgmma; sm_120 is unrolled anew, as
# sm_100 is. fp8 on mma begins with sm_89. To read all seven would take twice as long.
READ = {"sm_80", "sm_90a", "sm_120"}
READ_FP8 = READ | {"sm_89"}
REGISTERS = 65536  # of a multiprocessor, given to warps in units of 256
# Registers of a lane with which a multiprocessor still has all the lanes it can: 1024 on sm_75, 1536 on three others, else 2048.
FREE = {"sm_75": 64, "sm_86": 40, "sm_89": 40, "sm_120": 40}
BOUNDS = pathlib.Path(__file__).with_name("registers.txt")
INSTRUCTION = {"mma": "HMMA", "wgmma": "HGMMA"}
# Cycles until a warp may issue the next product, at best; and how many more each may take for what else stands in the loop.
PRODUCT = {"sm_80": 8, "sm_90a": 6, "sm_120": 16}
BESIDE = {("matmul", "mma"): 1.1, ("conv2d", "implicit_mma"): 1.9}
OF_8_BITS = {"int8": {"mma": "IMMA", "wgmma": "IGMMA"}, "fp8": {"mma": "QMMA", "wgmma": "QGMMA"}}
# What sources promise of accesses: entries -> instructions, by the parts of their names. `!`: and no other instruction of that kind.
# Where shapes may be awkward, single elements are accessed beside vectors.
PROMISES = [
    (r"matmul/register f32 whole", "LDG.128! STG.128!"),
    (r"matmul/register b?f16 whole", "LDG.64! STG.64!"),
    (r"matmul/gemv \w+ (one|eight|tall)", "LDG.128!"),
    (r"matmul/pipelined f32 whole", "LDG.128! LDS.128! STG.128! STS.128"),
    (r"matmul/mma \w+ whole", "LDGSTS.BYPASS.128! LDSM.M88.4 ARRIVES.LDGSTSBAR"),
    (r"matmul/mma b?f16 whole", "LDSM.MT88.4 STG.128"),
    (r"matmul/wgmma \w+ whole", "UTMALDG STG.128!"),
    (r"conv2d/implicit f32 whole", "LDG.128! LDS.128! STG.128"),
    (r"conv2d/implicit_mma \w+ whole", "LDGSTS.BYPASS.128 LDGSTS.128! LDSM.M88.4!"),
    (r"conv2d/implicit_mma b?f16 whole", "STG.128"),
    (r"depthwise/vectorized \w+ vector", "LDG.128! STG.128!"),
    (r"depthwise/window \w+ (three|strip)", "LDG.128! STG.128!"),
    (r"depthwise/window f32 down", "LDG.128! STG.128!"),
    (r"depthwise/window b?f16 down", "LDG.64! STG.64!"),
    (r"attention/flash f32 whole(64|128)", "LDG.128! LDS.128! STG.128!"),
    (r"attention/flash f32 ragged(64|128)", "LDS.128!"),
    (r"attention/flash_mma b?f16 whole(64|128)", "LDGSTS.BYPASS.128! LDSM.M88.4 LDSM.MT88.4"),
    (r"attention/flash_wgmma b?f16 whole(64|128)", "UTMALDG STG.128"),
    (r"attention/flash_decode \w+ (one|four|eight)(64|128)", "LDG.128!"),
    (r"quantized/gemv f32 (one|four)_[48]", "LDG.128!"),
    (r"quantized/gemv b?f16 (one|four)_[48]", "LDG.128! LDG.64!"),  # scales by fours
    (r"(linformer|performer)/linear f32 (attend|gather|project)", "LDS.128 STS.128"),
    (r"stream/linear f32 (read|copy|triad)", "LDG.128"),
    (r"stream/linear f32 (write|copy|triad)", "STG.128"),
    (r"ramp/chains f32 ramp", "LDG.128 STG.128"),
    (r"shared/rotated f32 rotated", "LDG.128! LDS.128 STS.128"),
]


def library(folder):
    """NVRTC, its built-ins loaded first: libnvrtc itself does not look beside it for them."""
    for pattern in ("libnvrtc-builtins.so*", "libnvrtc.so*"):
        found = sorted(p for p in pathlib.Path(folder).glob(pattern) if "alt" not in p.name)
        if not found:
            sys.exit(f"no {pattern} in {folder}")
        loaded = ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
    return loaded


class Nvrtc:
    def __init__(self, folder):
        self.lib = library(folder)

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value + 1)
        getattr(self.lib, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw[: size.value]

    def compile(self, name, text, options):
        """(status, log, PTX, size of the machine code)"""
        program = ctypes.c_void_p()
        self.lib.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = self.lib.nvrtcCompileProgram(program, len(options), given)
        log = self.text(program, "ProgramLog").decode().strip("\0")
        ptx, cubin = "", b""
        if status == 0:
            ptx = self.text(program, "PTX").decode().strip("\0")
            cubin = self.text(program, "CUBIN")
        self.lib.nvrtcDestroyProgram(ctypes.byref(program))
        return status, log, ptx, cubin


def usages(log):
    """Entry point -> (registers, stack bytes, spill bytes, shared bytes), from the assembler's lines."""
    found, entry = {}, None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            entry = match[1]
            found[entry] = [None, None, None, 0]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[entry][1:3] = int(match[1]), int(match[2]) + int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            found[entry][0] = int(match[1])
            if match := re.search(r"(\d+) bytes smem", line):
                found[entry][3] = int(match[1])
    return found


def promises(kernel, ptx):
    """What a source says of itself and the PTX must show."""
    bodies = {m[1]: m[0] for m in re.finditer(r"\.entry (\w+)\(.*?\n}", ptx, re.S)}
    for entry in kernel["entries"]:
        body = bodies.get(entry, "")
        if kernel["op"] == "fma":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], len(re.findall(r"fma\.rn\.f(?:32|64|16x2)", body))
            if found < wanted:
                yield f"{entry}: {found} multiply-adds, expected at least {wanted}"
        if kernel["op"] == "dot":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], len(re.findall(r"dp4a\.s32\.s32", body))
            if found < wanted:
                yield f"{entry}: {found} products of four, expected at least {wanted}"


def parsed(text):
    """Entry point -> its instructions as (name, cycles until the warp may issue the next, where it jumps to). An instruction is 16
    bytes; the cycles are bits 105 to 108, since Volta (Jia and others, arXiv:1804.06826, 2.1)."""
    found, labels = {}, {}
    for line in text.splitlines():
        if match := re.match(r"\.text\.(\w+):", line):
            found[match[1]] = own = []
        elif match := re.match(r"(\.L\w+):", line):
            labels[match[1]] = len(own) if found else 0
        elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[0-9T]+ +)?([A-Z][A-Z0-9_.]*)(.*?);", line):
            target = re.search(r"\.L\w+", match[2])
            own.append([match[1], 0, target and target[0]])
        elif (match := re.match(r"\s+/\* 0x([0-9a-f]{16}) \*/", line)) and found and own:
            own[-1][1] = int(match[1], 16) >> 41 & 15
    return {entry: [(name, cycles, labels.get(target)) for name, cycles, target in own] for entry, own in found.items()}


def disassembled(libraries, cubin):
    program = pathlib.Path(libraries).parent / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return parsed(subprocess.run([program, "-c", "-hex", file.name], check=True, capture_output=True, text=True).stdout)


def spans(own):
    """Where the instructions of every loop stand."""
    return [range(target, at + 1) for at, (name, _, target) in enumerate(own) if name.startswith("BRA") and target is not None and target <= at]


def loops(own):
    """The instructions of every loop."""
    return [[own[i] for i in span] for span in spans(own)]


def product_loop(own):
    """(products, cycles) of one turn of the loop that holds most matrix products, as one warp issues it where nothing makes it wait: loops
    within it that hold none, such as those of waits, are not gone through."""
    products = lambda loop: sum(own[i][0].startswith("HMMA") for i in loop)
    all_loops = spans(own)
    beside = {i for loop in all_loops if products(loop) == 0 for i in loop}
    turns = [(products(loop), sum(own[i][1] for i in loop if i not in beside)) for loop in all_loops]
    return max(turns, default=(0, 0))


def weighs_beside_sums(own):
    """Whether, in the loop that holds most products of four warps, exponentials stand between the wait for scores, the first after the
    products, and the wait for sums."""
    kinds = {"HGMMA": "P", "MUFU": "E", "WARPGROUP.DEPBAR": "W"}
    turns = ["".join(kind for name, _, _ in loop for of, kind in kinds.items() if name.startswith(of)) for loop in loops(own)]
    turn = max(turns, key=lambda turn: turn.count("P"), default="")
    begin = turn.rfind("P") + 1
    return re.match("WE{32,}W", turn[begin:] + turn[:begin]) is not None


def row_of(kernel, entry):
    return f"{kernel['op']}/{kernel['variant']} {kernel['precision'] or '-'} {entry}"


def holds(name, parts):
    return name.split(".")[0] == parts[0] and set(parts) <= set(name.split("."))


def lacking(promised, own):
    """What instructions of these names lack or have beside what is promised."""
    asked = [what.rstrip("!").split(".") for what in promised.split()]
    for parts in asked:
        if not any(holds(name, parts) for name in own):
            yield f"no {'.'.join(parts)}"
    for kind in {what.split(".")[0] for what in promised.split() if what.endswith("!")}:
        others = [name for name in own if name.split(".")[0] == kind and not any(holds(name, parts) for parts in asked)]
        if others:
            yield f"{len(others)} {kind} are other than promised, such as {others[0]}"


def machine_promises(kernel, architecture, found):
    """What the machine code must and must not hold."""
    for entry, code in found.items():
        local = [name for name, _, _ in code if name.split(".")[0] in ("LDL", "STL")]
        if local:
            yield f"{entry}: {len(local)} accesses to local memory"
    for entry in kernel["entries"]:
        code = found.get(entry, [])
        own = [name for name, _, _ in code]
        if not own:
            yield f"{entry}: no machine code"
        wanted = OF_8_BITS.get(kernel["precision"], INSTRUCTION).get(kernel["unit"])
        if wanted and not any(name.split(".")[0] == wanted for name in own):
            yield f"{entry}: no {wanted}"
        for pattern, promised in PROMISES:
            if re.fullmatch(pattern, row_of(kernel, entry)):
                yield from (f"{entry}: {what}" for what in lacking(promised, own))
        if kernel["op"] == "fma" and kernel["precision"] == "f16":
            # Compilers move constants with it too.
            wanted, found_here = 8 * kernel["tunables"]["CHAINS"], sum(name.startswith("HFMA2") for name in own)
            if found_here < wanted:
                yield f"{entry}: {found_here} HFMA2, expected at least {wanted}"
            # sm_80 and sm_90 have a second pipe for pairs, by its own name.
            paired = sum(name.startswith("HFMA2.MMA") for name in own)
            if architecture in ("sm_80", "sm_90a") and 2 * paired < wanted:
                yield f"{entry}: {paired} HFMA2.MMA, expected half of {wanted}"
        if kernel["op"] == "dot":
            wanted, found_here = 8 * kernel["tunables"]["CHAINS"], sum(name.startswith("IDP.4A.S8.S8") for name in own)
            if found_here < wanted:
                yield f"{entry}: {found_here} IDP.4A, expected at least {wanted}"
        beside = BESIDE.get((kernel["op"], kernel["variant"]))
        # Words are rounded between products, and with two stages copies stand close together.
        if beside and kernel["precision"] != "tf32" and kernel["tunables"]["STAGES"] > 2 and entry == "whole":
            most, (products, cycles) = PRODUCT[architecture] + beside, product_loop(code)
            if products == 0 or cycles > most * products:
                yield f"{entry}: a turn of its loop has {products} products and takes {cycles} cycles to issue, more than {most} each"
        if kernel["unit"] == "wgmma" and kernel["op"] == "attention" and entry.startswith("whole") and not weighs_beside_sums(code):
            yield f"{entry}: no exponentials between the wait for scores and the wait for sums"
        if kernel["unit"] == "wgmma" and entry.startswith("whole"):
            # Such a fence waits for all stores of the processor.
            if any(any(name.startswith("HGMMA") for name, _, _ in loop) and any(name.startswith("MEMBAR") for name, _, _ in loop) for loop in loops(code)):
                yield f"{entry}: a fence for all of memory among its products"
            shared = kernel["tunables"].get("CLUSTER", 1) > 1
            if shared != any(name.startswith("UTMALDG") and "MULTICAST" in name for name in own):
                yield f"{entry}: copies go to {'one group' if shared else 'several groups'}"


def needed(registers, architecture):
    """Registers of a lane as they are given out, in eights; those that keep no lane away count as the fewest."""
    given = -(-registers // 8) * 8
    return given if given > FREE.get(architecture, 32) else 32


def log_promises(kernel, architecture, log, bounds, first):
    """What the assembler's log must and must not say; `bounds` are those of all rows, or None to allow any registers; `first` tells whether
    these are the first tunables."""
    yield from (line for line in log.splitlines() if "warning" in line or re.search(r"\(C75\d\d\)", line))
    found = usages(log)
    for entry in kernel["entries"]:
        if entry not in found:
            yield f"{entry}: not in the log"
            continue
        registers, stack, spills, shared = found[entry]
        if stack or spills:
            yield f"{entry}: {stack} bytes of stack, {spills} bytes of spills"
        if (-(-registers // 8) * 8) * 32 * -(-kernel["lanes"].get(entry, 1) // 32) > REGISTERS:
            yield f"{entry}: {registers} registers of {kernel['lanes'][entry]} lanes are more than a multiprocessor has"
        if entry in kernel["shared"] and shared > kernel["shared"][entry]:
            yield f"{entry}: {shared} bytes of shared memory where the plan says {kernel['shared'][entry]}"
        if bounds is None:
            continue
        bound = bounds.get(row_of(kernel, entry), {}).get("first" if first else "any")
        if bound is None:
            yield f"{entry}: no bound of its registers in {BOUNDS.name}"
        elif needed(registers, architecture) > bound:
            yield f"{entry}: {registers} registers where {BOUNDS.name} allows {bound}"


def bounds_in(text):
    """Row -> its bounds with the first tunables and with any."""
    lines = [line.rsplit(None, 2) for line in text.splitlines() if line and not line.startswith("#")]
    return {" ".join(row.split()): {"first": int(first), "any": int(most)} for row, first, most in lines}


def bounds_text(bounds):
    return """# Registers of a lane that an entry may take: with its first tunables, with any. Multiples of eight, as they are given
# out. What leaves a multiprocessor all the lanes it can have is never too much: 64 on sm_75, 40 on sm_86, sm_89 and sm_120, 32 on others.
# NVRTC 13.0.88; written by: scripts/check-cuda-kernels.sh 13.0.88 [ONLY] --update
""" + "".join(f"{row:42}{bound['first']:4}{bound['any']:4}\n" for row, bound in bounds.items())


def nameless(manifest, bounds):
    """Bounds and promises of what no kernel is."""
    rows = {row_of(kernel, entry) for kernel in manifest for entry in kernel["entries"]}
    yield from (f"{BOUNDS.name}: {row}: there is no such entry" for row in bounds if row not in rows)
    yield from (f"{pattern}: promised of no entry" for pattern, _ in PROMISES if not any(re.fullmatch(pattern, row) for row in rows))


def check(nvrtc, libraries, folder, bounds, kernel, first, architecture):
    """(registers by entry, complaints)"""
    text = (folder / kernel["file"]).read_text()
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]
    options += ["--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror"]
    options += [f"-D{define}" for define in kernel["defines"]]
    status, log, ptx, cubin = nvrtc.compile(kernel["file"], text, options)
    if status != 0 or not cubin:
        return {}, [f"does not compile (status {status}, {len(cubin)} bytes):\n{log}"]
    complaints = [*log_promises(kernel, architecture, log, bounds, first), *promises(kernel, ptx)]
    if architecture in (READ_FP8 if kernel["precision"] == "fp8" else READ):
        complaints += machine_promises(kernel, architecture, disassembled(libraries, cubin))
    return {entry: use[0] for entry, use in usages(log).items()}, complaints


def updated(bounds, manifest, compiled, used):
    """The bounds of all rows after `compiled`, of the whole manifest, used these. What was not compiled keeps its bound."""
    new = {}
    for kernel in manifest:
        settings = [other["file"] for other in manifest if row_of(other, "") == row_of(kernel, "")]
        for row in (row_of(kernel, entry) for entry in kernel["entries"]):
            old, now = bounds.get(row, {}), used.get(row, {})
            if old or now:
                most = max(now.get("any", 0), 0 if now and compiled.issuperset(settings) else old.get("any", 0))
                new[row] = {"first": now.get("first", old.get("first", most)), "any": most}
    return new


def self_test():
    """Breaks every promise, each alone. What nobody complains of, or is complained of without cause."""
    wrong = []

    def expect(part, complaints):
        if not any(part in complaint for complaint in complaints):
            wrong.append(f"nobody complains: {part}")

    def quiet(complaints):
        wrong.extend(f"without cause: {complaint}" for complaint in complaints)

    def kernel(row, unit="memory", **tunables):
        name, precision, entry = row.split()
        op, variant = name.split("/")
        named = {"op": op, "variant": variant, "precision": precision, "unit": unit, "tunables": {"STAGES": 2, **tunables}}
        return {**named, "entries": [entry], "lanes": {entry: 256}, "shared": {entry: 1024}}

    def machine(kernel, names, architecture="sm_90a"):
        return list(machine_promises(kernel, architecture, {kernel["entries"][0]: [(name, 0, None) for name in names]}))

    for pattern, promised in PROMISES:
        row = re.sub(r"\((\w+)[^)]*\)", r"\1", pattern).replace("b?", "").replace(r"\w+", "f16").replace("[48]", "4")
        every = " ".join(also for other, also in PROMISES if re.fullmatch(other, row)).replace("!", "").split()
        names = [what.replace(".", ".E.", 1) for what in every]
        quiet(machine(kernel(row), names))
        for what in promised.split():
            parts = what.rstrip("!").split(".")
            expect(f"no {'.'.join(parts)}", machine(kernel(row), [name for name in names if not holds(name, parts)] + ["MOV"]))
            if what.endswith("!"):
                expect(f"1 {parts[0]} are other", machine(kernel(row), names + [f"{parts[0]}.E.U8"]))
    plain = kernel("a/b f32 c")
    quiet(machine(plain, ["LDG.E"]))
    for local in ("LDL", "STL.64"):
        expect("local memory", machine(plain, [local]))
    expect("no machine code", machine(plain, []))
    for precision, unit, name in [(p, u, i) for p, of in {"f16": INSTRUCTION, **OF_8_BITS}.items() for u, i in of.items()]:
        quiet(machine(kernel(f"matrix/{unit} {precision} rate", unit), [name]))
        expect(f"no {name}", machine(kernel(f"matrix/{unit} {precision} rate", unit), ["MOV"]))
    for row, name in (("fma/chains f16 chains", "HFMA2"), ("dot/chains int8 chains", "IDP.4A.S8.S8")):
        quiet(machine(kernel(row, CHAINS=2), [name, f"{name}.MMA"] * 8))
        expect("expected at least 16", machine(kernel(row, CHAINS=2), [name] * 15))
    expect("expected half of 16", machine(kernel("fma/chains f16 chains", CHAINS=2), ["HFMA2"] * 16))
    fenced = {"whole": [("HGMMA", 1, None), ("MEMBAR.ALL.GPU", 1, None), ("BRA", 1, 0)]}
    expect("a fence for all of memory", machine_promises(kernel("matmul/wgmma f16 whole", "wgmma", CLUSTER=1), "sm_90a", fenced))
    for cluster, name in ((2, "UTMALDG.2D"), (1, "UTMALDG.2D.MULTICAST")):
        expect("copies go to", machine(kernel("matmul/wgmma f16 whole", "wgmma", CLUSTER=cluster), [name]))
    for architecture, best in PRODUCT.items():
        def loop(cycles):
            code = {"whole": [("HMMA", best, None)] * 4 + [("SYNCS", 9, None), ("BRA", 9, 4), ("BRA", cycles, 0)]}
            return machine_promises(kernel("matmul/mma bf16 whole", STAGES=3), architecture, code)

        quiet(what for what in loop(4) if "turn" in what)
        expect("4 products and takes", loop(5))

    def weighing(*turn):
        code = [(name, 1, None) for name in turn] + [("BRA", 1, 0)]
        return machine_promises(kernel("attention/flash_wgmma f16 whole64", "wgmma"), "sm_90a", {"whole64": code})

    wait, products, weights = "WARPGROUP.DEPBAR.LE", ["HGMMA.64x128x16.F32"] * 2, ["MUFU.EX2"] * 32
    between = "between the wait for scores and the wait for sums"
    quiet(what for what in weighing(wait, *products, wait, *weights) if between in what)
    for turn in ([*products, wait, wait, *weights], [*products, wait, *weights[1:], wait], [*products, *weights, wait]):
        expect(between, weighing(*turn))
    for row, body in (("fma/chains f32 chains", "fma.rn.f32;"), ("dot/chains int8 chains", "dp4a.s32.s32;")):
        ptx = lambda count: promises(kernel(row, CHAINS=2), ".entry chains(\n)\n{\n" + body * count + "\n}")
        quiet(ptx(16))
        expect("expected at least 16", ptx(15))

    text = """.text.c:
.L_1:
        /*0000*/              @!P0 STL.64 [R1], R2 ;       /* 0x0000000201000387 */
                                                           /* 0x000fe20000100a00 */
        /*0010*/                   BRA `(.L_1) ;           /* 0xfffffffc00fc7947 */
                                                           /* 0x000fea000383ffff */
"""
    if parsed(text) != {"c": [("STL.64", 1, None), ("BRA", 5, 0)]}:
        wrong.append(f"read as {parsed(text)}")

    bounds = {"a/b f32 c": {"first": 40, "any": 48}}

    def log(registers=40, first=True, architecture="sm_80", bounds=bounds, stack=0, spills=0, shared=1024, entry="c", lanes=256, more=""):
        text = f"""ptxas info : Compiling entry function '{entry}' for '{architecture}'
{more}
    {stack} bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads
ptxas info : Used {registers} registers, {shared} bytes smem"""
        return list(log_promises({**plain, "lanes": {"c": lanes}}, architecture, text, bounds, first))

    quiet(log())
    quiet(log(48, first=False))
    quiet(log(61, architecture="sm_75"))
    for registers, first in ((41, True), (49, False), (255, True)):
        expect(f"{registers} registers where", log(registers, first))
    expect("65 registers where", log(65, architecture="sm_75"))
    expect("no bound", log(bounds={}))
    expect("than a multiprocessor has", log(72, lanes=1024))
    expect("bytes of stack", log(stack=8))
    expect("bytes of spills", log(spills=8))
    expect("the plan says 1024", log(shared=1025))
    expect("not in the log", log(entry="d"))
    expect("warning", log(more="ptxas warning : Registers are spilled to local memory"))
    expect("(C7510)", log(more="ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized"))

    if bounds_in(bounds_text(bounds)) != bounds:
        wrong.append("bounds are read otherwise than written")
    expect("a/b f32 c: there is no", nameless([], bounds))
    for pattern, _ in PROMISES:
        expect(f"{pattern}: promised of no", nameless([], {}))
    manifest = [{**plain, "file": "1"}, {**plain, "file": "2"}]
    for compiled, used, now in (
        ({"1", "2"}, {"first": 32, "any": 40}, {"first": 32, "any": 40}),
        ({"1"}, {"first": 32, "any": 32}, {"first": 32, "any": 48}),
        ({"2"}, {"any": 64}, {"first": 40, "any": 64}),
        (set(), {}, {"first": 40, "any": 48}),
    ):
        if updated({**bounds, "gone/b f32 c": {}}, manifest, compiled, {"a/b f32 c": used}) != {"a/b f32 c": now}:
            wrong.append(f"bounds after {used} of {compiled} are not {now}")
    return wrong


def main():
    if sys.argv[1:] == ["--self-test"]:
        wrong = self_test()
        print("\n".join(f"FAILED self-test: {what}" for what in wrong) or "self-test: every broken promise is complained of")
        sys.exit(1 if wrong else 0)
    folder, libraries = pathlib.Path(sys.argv[1]), sys.argv[2]
    update = "--update" in sys.argv[3:]
    only = "".join(argument for argument in sys.argv[3:] if argument != "--update")
    whole = json.loads((folder / "manifest.json").read_text())
    # The first of each kind: a later one of the same key loses.
    first = {(k["op"], k["variant"], k["precision"]): k["file"] for k in reversed(whole)}.values()
    manifest = [kernel for kernel in whole if (kernel["file"] in first if only == "--defaults" else only in kernel["file"])]
    bounds = bounds_in(BOUNDS.read_text()) if BOUNDS.exists() else {}
    nvrtc, failures, rows, used = Nvrtc(libraries), 0, {}, {}

    def failed(complaint):
        nonlocal failures
        failures += 1
        print(f"FAILED {complaint}", flush=True)

    for complaint in nameless(whole, {} if update else bounds):
        failed(complaint)
    have = lambda kernel: (HAVE_FP8 if kernel["precision"] == "fp8" else HAVE).get(kernel["unit"], ARCHITECTURES)
    wanted = [(kernel, kernel["file"] in first, architecture) for kernel in manifest for architecture in have(kernel)]
    # NVRTC lets go of the interpreter, and compiles side by side.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = pool.map(lambda asked: check(nvrtc, libraries, folder, None if update else bounds, *asked), wanted)
        for (kernel, is_first, architecture), (registers, complaints) in zip(wanted, checked):
            for complaint in complaints:
                failed(f"{kernel['file']} {architecture}: {complaint}")
            for entry in kernel["entries"]:
                row = row_of(kernel, entry)
                rows.setdefault(row, {}).setdefault(architecture, []).append(registers.get(entry))
                if entry in registers:
                    for which in ("first", "any") if is_first else ("any",):
                        most = used.setdefault(row, {})
                        most[which] = max(most.get(which, 0), needed(registers[entry], architecture))
    if update:
        bounds = updated(bounds, whole, {kernel["file"] for kernel in manifest}, used)
        BOUNDS.write_text(bounds_text(bounds))
    print(f"registers of a lane, least to most over all tunables (NVRTC {nvrtc.version()}; no entry spills unless FAILED above), and what")
    print(f"{BOUNDS.name} allows the first tunables and any\n")
    print(f"{'kernel':42}" + "".join(f"{a:>10}" for a in ARCHITECTURES) + f"{'allowed':>10}")
    for row, found in rows.items():
        cells = []
        for architecture in ARCHITECTURES:
            numbers = sorted({n for n in found.get(architecture, []) if n is not None})
            if architecture not in found:
                cells.append("-")
                continue
            cells.append("failed" if not numbers else "-".join(str(n) for n in dict.fromkeys((numbers[0], numbers[-1]))))
        cells.append(" ".join(str(n) for n in bounds.get(row, {}).values()))
        print(f"{row:42}" + "".join(f"{cell:>10}" for cell in cells))
    print(f"\n{len(manifest)} sources, {len(ARCHITECTURES)} architectures, {len(wanted)} compiled, {failures} complaints")
    sys.exit(1 if failures or not manifest else 0)


main()

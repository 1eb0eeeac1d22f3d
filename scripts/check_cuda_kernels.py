"""Compiles rendered CUDA sources to machine code for every architecture with NVRTC; needs no GPU and no driver.

usage: check_cuda_kernels.py FOLDER LIBFOLDER [--defaults | ONLY]

FOLDER holds manifest.json and the sources (examples/render_kernels.rs); LIBFOLDER holds libnvrtc.so.*, and nvdisasm beside it. ONLY:
sources whose file names hold this; `--defaults`: every kernel in every precision, with its first tunables alone. Fails on an error, a
spill, local memory, a missing entry point, more registers than a multiprocessor has for one group, more shared memory than the plan
says, and on memory accesses that a source promises to be 16 bytes wide and are not. Kernels of matrix units are compiled for the
architectures that have them. The machine code for sm_90a (fp8 on mma: sm_89) is read too: matrix instructions and pairs of f16 where
they are promised, no local memory anywhere, and few cycles beside the products in the loops of matmul/mma and conv2d/implicit_mma.
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
READ = "sm_90a"
READ_FP8 = {"mma": "sm_89"}
REGISTERS = 65536  # of a multiprocessor, given to warps in units of 256
INSTRUCTION = {"mma": "HMMA", "wgmma": "HGMMA"}
# A warp issues a product every six cycles at best; what else stands in the loop is to fit between.
CYCLES = {("matmul", "mma"): 6.3, ("conv2d", "implicit_mma"): 8.5}
OF_8_BITS = {"int8": {"mma": "IMMA", "wgmma": "IGMMA"}, "fp8": {"mma": "QMMA", "wgmma": "QGMMA"}}


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
        if kernel["op"] == "stream":
            if entry != "write" and not re.search(r"ld\.global(\.nc|\.cg)?\.v4\.(f|b|u)32", body):
                yield f"{entry}: no 16-byte load"
            if entry != "read" and not re.search(r"st\.global\.v4\.(f|b|u)32", body):
                yield f"{entry}: no 16-byte store"
        if kernel["op"] == "fma":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], len(re.findall(r"fma\.rn\.f(?:32|64|16x2)", body))
            if found < wanted:
                yield f"{entry}: {found} multiply-adds, expected at least {wanted}"
        if kernel["op"] == "dot":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], len(re.findall(r"dp4a\.s32\.s32", body))
            if found < wanted:
                yield f"{entry}: {found} products of four, expected at least {wanted}"


def disassembled(libraries, cubin):
    """Entry point -> its instructions as (name, cycles until the warp may issue the next, where it jumps to). An instruction is 16
    bytes; the cycles are bits 105 to 108, since Volta (Jia and others, arXiv:1804.06826, 2.1)."""
    program = pathlib.Path(libraries).parent / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([program, "-c", "-hex", file.name], check=True, capture_output=True, text=True).stdout
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


def product_loop(own):
    """(products, cycles) of one turn of the loop that holds most matrix products, as one warp issues it where nothing makes it wait."""
    loops = [own[target : at + 1] for at, (name, _, target) in enumerate(own) if name.startswith("BRA") and target is not None and target <= at]
    turns = [(sum(name.startswith("HMMA") for name, _, _ in loop), sum(cycles for _, cycles, _ in loop)) for loop in loops]
    return max(turns, default=(0, 0))


def machine_promises(kernel, found):
    """What the machine code must and must not hold."""
    for entry in kernel["entries"]:
        code = found.get(entry, [])
        own = [name for name, _, _ in code]
        if not own:
            yield f"{entry}: no machine code"
        local = [name for name in own if re.match(r"(LDL|STL)\b", name)]
        if local:
            yield f"{entry}: {len(local)} accesses to local memory"
        wanted = OF_8_BITS.get(kernel["precision"], INSTRUCTION).get(kernel["unit"])
        if wanted and not any(name.startswith(wanted) for name in own):
            yield f"{entry}: no {wanted}"
        if kernel["op"] == "fma" and kernel["precision"] == "f16":
            # Compilers move constants with it too.
            wanted, found = 8 * kernel["tunables"]["CHAINS"], sum(name.startswith("HFMA2") for name in own)
            if found < wanted:
                yield f"{entry}: {found} HFMA2, expected at least {wanted}"
        if kernel["op"] == "dot":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], sum(name.startswith("IDP.4A.S8.S8") for name in own)
            if found < wanted:
                yield f"{entry}: {found} IDP.4A, expected at least {wanted}"
        most = CYCLES.get((kernel["op"], kernel["variant"]))
        # Words are rounded between products, and with two stages copies stand close together.
        if most and kernel["precision"] != "tf32" and kernel["tunables"]["STAGES"] > 2 and entry == "whole":
            products, cycles = product_loop(code)
            if products == 0 or cycles > most * products:
                yield f"{entry}: a turn of its loop has {products} products and takes {cycles} cycles to issue, more than {most} each"
        if (kernel["op"], kernel["variant"]) == ("matmul", "pipelined") and entry == "whole":
            if not all(any(name.startswith(wide) for name in own) for wide in ("LDG.E.128", "LDS.128", "STG.E.128")):
                yield f"{entry}: an access is not 16 bytes wide"
        if (kernel["op"], kernel["variant"]) == ("quantized", "gemv") and entry != "ragged":
            if not any(name.startswith("LDG.E.128") for name in own):
                yield f"{entry}: no 16-byte load"
        if kernel["unit"] == "wgmma" and entry.startswith("whole"):
            if not any(name.startswith("UTMALDG") for name in own):
                yield f"{entry}: no copies of boxes"
            shared = kernel["tunables"].get("CLUSTER", 1) > 1
            if shared != any(name.startswith("UTMALDG") and "MULTICAST" in name for name in own):
                yield f"{entry}: copies go to {'one group' if shared else 'several groups'}"
        if kernel["unit"] == "mma" and kernel["op"] != "matrix" and entry.startswith("whole"):
            if not all(any(name.startswith(wanted) for name in own) for wanted in ("LDGSTS", "LDSM")):
                yield f"{entry}: no asynchronous copies or matrix loads"


def check(nvrtc, libraries, folder, kernel, architecture):
    """(registers by entry, complaints)"""
    text = (folder / kernel["file"]).read_text()
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]
    options += ["--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror"]
    options += [f"-D{define}" for define in kernel["defines"]]
    status, log, ptx, cubin = nvrtc.compile(kernel["file"], text, options)
    if status != 0 or not cubin:
        return {}, [f"does not compile (status {status}, {len(cubin)} bytes):\n{log}"]
    complaints = [line for line in log.splitlines() if "warning" in line or re.search(r"\(C75\d\d\)", line)]
    found = usages(log)
    for entry in kernel["entries"]:
        if entry not in found:
            complaints.append(f"{entry}: not in the log")
        elif found[entry][1] or found[entry][2]:
            complaints.append(f"{entry}: {found[entry][1]} bytes of stack, {found[entry][2]} bytes of spills")
        elif (-(-found[entry][0] // 8) * 8) * 32 * -(-kernel["lanes"].get(entry, 1) // 32) > REGISTERS:
            complaints.append(f"{entry}: {found[entry][0]} registers of {kernel['lanes'][entry]} lanes are more than a multiprocessor has")
        elif entry in kernel["shared"] and found[entry][3] > kernel["shared"][entry]:
            complaints.append(f"{entry}: {found[entry][3]} bytes of shared memory where the plan says {kernel['shared'][entry]}")
    complaints += promises(kernel, ptx)
    if architecture == (READ_FP8.get(kernel["unit"], READ) if kernel["precision"] == "fp8" else READ):
        complaints += machine_promises(kernel, disassembled(libraries, cubin))
    return {entry: use[0] for entry, use in found.items()}, complaints


def main():
    folder, libraries = pathlib.Path(sys.argv[1]), sys.argv[2]
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    manifest = json.loads((folder / "manifest.json").read_text())
    if only == "--defaults":
        # The first of each kind: a later one of the same key loses.
        manifest = list({(k["op"], k["variant"], k["precision"]): k for k in reversed(manifest)}.values())[::-1]
    else:
        manifest = [kernel for kernel in manifest if only in kernel["file"]]
    nvrtc, failures, rows = Nvrtc(libraries), 0, {}
    have = lambda kernel: (HAVE_FP8 if kernel["precision"] == "fp8" else HAVE).get(kernel["unit"], ARCHITECTURES)
    wanted = [(kernel, architecture) for kernel in manifest for architecture in have(kernel)]
    # NVRTC lets go of the interpreter, and compiles side by side.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = pool.map(lambda asked: check(nvrtc, libraries, folder, *asked), wanted)
        for (kernel, architecture), (registers, complaints) in zip(wanted, checked):
            for complaint in complaints:
                failures += 1
                print(f"FAILED {kernel['file']} {architecture}: {complaint}", flush=True)
            for entry in kernel["entries"]:
                row = f"{kernel['op']}/{kernel['variant']} {kernel['precision'] or ''} {entry}"
                rows.setdefault(row, {}).setdefault(architecture, []).append(registers.get(entry))
    print(f"registers of a lane, least to most over all tunables (NVRTC {nvrtc.version()}; no entry spills unless FAILED above)\n")
    print(f"{'kernel':34}" + "".join(f"{a:>10}" for a in ARCHITECTURES))
    for row, found in rows.items():
        cells = []
        for architecture in ARCHITECTURES:
            numbers = sorted({n for n in found.get(architecture, []) if n is not None})
            if architecture not in found:
                cells.append("-")
                continue
            cells.append("failed" if not numbers else "-".join(str(n) for n in dict.fromkeys((numbers[0], numbers[-1]))))
        print(f"{row:34}" + "".join(f"{cell:>10}" for cell in cells))
    print(f"\n{len(manifest)} sources, {len(ARCHITECTURES)} architectures, {len(wanted)} compiled, {failures} complaints")
    sys.exit(1 if failures or not manifest else 0)


main()

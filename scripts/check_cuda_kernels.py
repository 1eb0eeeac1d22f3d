"""Compiles rendered CUDA sources to machine code for every architecture with NVRTC; needs no GPU and no driver.

usage: check_cuda_kernels.py FOLDER LIBFOLDER

FOLDER holds manifest.json and the sources (examples/render_kernels.rs); LIBFOLDER holds libnvrtc.so.*. Fails on an error, a
spill, local memory, a missing entry point, and on memory accesses that a source promises to be 16 bytes wide and are not.
"""

import ctypes
import json
import pathlib
import re
import sys

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]


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
        ptx, size = "", 0
        if status == 0:
            ptx = self.text(program, "PTX").decode().strip("\0")
            size = len(self.text(program, "CUBIN"))
        self.lib.nvrtcDestroyProgram(ctypes.byref(program))
        return status, log, ptx, size


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
            if entry != "write" and not re.search(r"ld\.global(\.nc)?\.v4\.(f|b|u)32", body):
                yield f"{entry}: no 16-byte load"
            if entry != "read" and not re.search(r"st\.global\.v4\.(f|b|u)32", body):
                yield f"{entry}: no 16-byte store"
        if kernel["op"] == "fma":
            wanted, found = 8 * kernel["tunables"]["CHAINS"], len(re.findall(r"fma\.rn\.f(?:32|64)", body))
            if found < wanted:
                yield f"{entry}: {found} multiply-adds, expected at least {wanted}"


def check(nvrtc, folder, kernel, architecture):
    """(registers by entry, complaints)"""
    text = (folder / kernel["file"]).read_text()
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]
    options += ["--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror"]
    options += [f"-D{define}" for define in kernel["defines"]]
    status, log, ptx, size = nvrtc.compile(kernel["file"], text, options)
    if status != 0 or size == 0:
        return {}, [f"does not compile (status {status}, {size} bytes):\n{log}"]
    complaints = [line for line in log.splitlines() if "warning" in line or re.search(r"\(C75\d\d\)", line)]
    found = usages(log)
    for entry in kernel["entries"]:
        if entry not in found:
            complaints.append(f"{entry}: not in the log")
        elif found[entry][1] or found[entry][2]:
            complaints.append(f"{entry}: {found[entry][1]} bytes of stack, {found[entry][2]} bytes of spills")
    complaints += promises(kernel, ptx)
    return {entry: use[0] for entry, use in found.items()}, complaints


def main():
    folder, libraries = pathlib.Path(sys.argv[1]), sys.argv[2]
    manifest = json.loads((folder / "manifest.json").read_text())
    nvrtc, failures, compiled, rows = Nvrtc(libraries), 0, 0, {}
    for kernel in manifest:
        for architecture in ARCHITECTURES:
            registers, complaints = check(nvrtc, folder, kernel, architecture)
            compiled += 1
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
            numbers = sorted({n for n in found[architecture] if n is not None})
            cells.append("failed" if not numbers else "-".join(str(n) for n in dict.fromkeys((numbers[0], numbers[-1]))))
        print(f"{row:34}" + "".join(f"{cell:>10}" for cell in cells))
    print(f"\n{len(manifest)} sources x {len(ARCHITECTURES)} architectures = {compiled} compiled, {failures} complaints")
    sys.exit(1 if failures or not manifest else 0)


main()

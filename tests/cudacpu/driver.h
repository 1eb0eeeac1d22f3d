// A stand-in for libcuda and libnvrtc on the CPU: as many of their functions as the cuda backend calls, over the shim.
//
// It lets the whole backend run where there is no GPU: probing, loading, filling, launching, timing, reading back. A program compiles
// to its own name, a module is found by that name, a launch runs its entry on the CPU before it returns. What it cannot show is what
// only a GPU has: asynchrony, real limits, real times.
//
// Mistakes on demand: with CUDACPU_MISTAKE=halved, copies between page-locked and device memory stop halfway; with
// CUDACPU_REFUSES=page-locked, there is no such memory; with `capture`, `captured-launch`, `end`, `instantiate`, `upload` or `graph-launch`
// that step of a graph fails, and with CUDACPU_MISTAKE=no-events its events are not recorded; with CUDACPU_NO_COMPILER, nothing is compiled. With
// CUDACPU_SPILLS or CUDACPU_SERIALISES, programs whose name and options hold that text spill, or have products of a warpgroup serialised.
// CUDACPU_L2 is the size of the cache in bytes.
//
// Faults of the device, by CUDACPU_REFUSES: `launch`, a launch fails; `lost`, a kernel strays, and every call from then on fails; `watchdog`,
// the same as one that ran too long; `slow`, it never ends; `module`, code is refused. They strike
// what holds CUDACPU_AT in its name, everything if that is not set, after CUDACPU_AFTER launches of it, and once where CUDACPU_ONCE names a
// file that they can leave as a mark. `resources`: a group takes more than there is; `memory`: each call that takes memory, whatever for, is a
// chance to find none, so that CUDACPU_AFTER counts them.
//
// CUDACPU_ARCH is the architecture, 90 by default; CUDACPU_COMPILES the one that NVRTC compiles for, the same by default.
#pragma once
#include "jobs.h"

#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <thread>

namespace {

constexpr int OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_SUPPORTED = 801;
constexpr int CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901;
constexpr int NO_BINARY = 209, ILLEGAL_ADDRESS = 700, OUT_OF_RESOURCES = 701, LAUNCH_TIMEOUT = 702, LAUNCH_FAILED = 719;
constexpr size_t MEMORY = size_t(256) << 20;
std::map<char*, size_t> allocations, page_locked;
size_t allocated;
int context; // its address is the context's handle
bool current;

// Whether [at, at + bytes) lies in one of these, of the device's unless told.
bool holds(const void* at, size_t bytes, const std::map<char*, size_t>& among = allocations) {
    const char* from = static_cast<const char*>(at);
    for (const auto& [start, size] : among) {
        if (from >= start && from + bytes <= start + size) return true;
    }
    return false;
}

bool asked(const char* variable, const char* what) {
    const char* value = getenv(variable);
    return value && strcmp(value, what) == 0;
}

int number(const char* variable, int otherwise) { return getenv(variable) ? atoi(getenv(variable)) : otherwise; }
int architecture() { return number("CUDACPU_ARCH", 90); }
int compiled_for() { return number("CUDACPU_COMPILES", architecture()); }

int lost; // what every call fails with from now on

// Whether a fault strikes what has this name.
bool strikes(const char* fault, const std::string& name) {
    static int met;
    const char *const at = getenv("CUDACPU_AT"), *const after = getenv("CUDACPU_AFTER"), *const mark = getenv("CUDACPU_ONCE");
    if (!asked("CUDACPU_REFUSES", fault) || (at && name.find(at) == std::string::npos)) return false;
    if (after && met++ < atoi(after)) return false;
    if (!mark) return true;
    if (std::ifstream(mark)) return false;
    return static_cast<bool>(std::ofstream(mark));
}

// What becomes of a launch instead; OK where it runs.
int fault_of(const std::string& entry) {
    if (strikes("launch", entry)) return LAUNCH_FAILED;
    if (strikes("resources", entry)) return OUT_OF_RESOURCES;
    if (strikes("slow", entry)) std::this_thread::sleep_for(std::chrono::hours(1));
    if (strikes("lost", entry)) lost = ILLEGAL_ADDRESS;
    if (strikes("watchdog", entry)) lost = LAUNCH_TIMEOUT;
    return OK;
}

// Whether a call that takes memory finds none.
bool exhausted() { return strikes("memory", "memory"); }

// Between page-locked and device memory.
void cross(void* to, const void* from, size_t bytes) { memcpy(to, from, asked("CUDACPU_MISTAKE", "halved") ? bytes / 2 : bytes); }

std::string module_name(std::string file) {
    for (char& c : file) {
        if (!isalnum(static_cast<unsigned char>(c))) c = '_';
    }
    return file;
}

using Time = std::chrono::steady_clock::time_point;

// Launches and event records, with copies of their arguments.
using Graph = std::vector<std::function<void()>>;
std::unique_ptr<Graph> capturing; // what the one stream captures now
bool spoilt;                      // by a call that no capture allows
constexpr size_t NODES = 4096;    // bytes of memory that a graph takes, whole or instantiated

// Why a call that would wait is refused: the device is lost, or a capture is under way, which that spoils. OK where it is not.
int waits() {
    if (lost) return lost;
    return capturing ? (spoilt = true, CAPTURE_UNSUPPORTED) : OK;
}

struct Program {
    std::string name, log;
};

} // namespace

// For the stand-ins of libraries: what they put on the stream, run now or when it is captured, with each launch of the graph.
extern "C" int cudacpu_put(const std::function<void()>& work) {
    if (capturing && asked("CUDACPU_REFUSES", "captured-library")) return spoilt = true, CAPTURE_UNSUPPORTED;
    if (capturing) capturing->push_back(work);
    else work();
    return OK;
}

extern "C" {

int cuInit(unsigned) { return OK; }
int cuDriverGetVersion(int* version) { return *version = 13000, OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? OK : INVALID; }
int cuDeviceGetName(char* name, int length, int) { return snprintf(name, length, "Stand-in"), OK; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = MEMORY, OK; }
int cuDeviceGetAttribute(int* value, int which, int) {
    // Numbers of CUdevice_attribute in cuda.h.
    const std::map<int, int> known = {{1, 1024}, {6, 65535},    {16, 1},     {17, 0},  {38, 1 << 20},
                                      {97, 232448}, {115, 0}, {33, 0x3b}, {34, 0}, {50, 0}};
    if (which == 75) return *value = architecture() / 10, OK;
    if (which == 76) return *value = architecture() % 10, OK;
    const char* cache = getenv("CUDACPU_L2");
    if (which == 38 && cache) return *value = atoi(cache), OK;
    const auto found = known.find(which);
    if (found == known.end()) return INVALID;
    return *value = found->second, OK;
}
int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &context, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(void* to) { return current = to != nullptr, OK; }
int cuCtxGetCurrent(void** now) { return *now = current ? &context : nullptr, OK; }
int cuCtxSynchronize() { return waits(); }
int cuStreamCreate(void** stream, unsigned) { return exhausted() ? OUT_OF_MEMORY : (*stream = new int(0), OK); }
int cuStreamDestroy_v2(void* stream) { return delete static_cast<int*>(stream), OK; }
int cuStreamSynchronize(void*) { return waits(); }

int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = MEMORY - allocated, *total = MEMORY, OK; }
int cuMemAlloc_v2(void** made, size_t bytes) {
    if (const int why = waits()) return why;
    if (bytes == 0) return INVALID;
    if (bytes > MEMORY - allocated || exhausted()) return OUT_OF_MEMORY;
    char* start = static_cast<char*>(std::aligned_alloc(512, (bytes + 511) / 512 * 512));
    allocations[start] = bytes;
    allocated += bytes;
    return *made = start, OK;
}
int cuMemFree_v2(void* at) {
    const auto found = allocations.find(static_cast<char*>(at));
    if (found == allocations.end()) return INVALID;
    allocated -= found->second;
    allocations.erase(found);
    return std::free(at), OK;
}
int cuMemsetD8_v2(void* at, unsigned char byte, size_t bytes) {
    if (const int why = waits()) return why;
    if (!holds(at, bytes)) return INVALID;
    return memset(at, byte, bytes), OK;
}
int cuMemcpyHtoD_v2(void* to, const void* from, size_t bytes) {
    if (const int why = waits()) return why;
    if (!holds(to, bytes)) return INVALID;
    return memcpy(to, from, bytes), OK;
}
int cuMemcpyDtoH_v2(void* to, const void* from, size_t bytes) {
    if (const int why = waits()) return why;
    if (!holds(from, bytes)) return INVALID;
    return memcpy(to, from, bytes), OK;
}

int cuMemHostAlloc(void** made, size_t bytes, unsigned flags) {
    if (bytes == 0 || flags != 0) return INVALID;
    if (asked("CUDACPU_REFUSES", "page-locked") || exhausted()) return OUT_OF_MEMORY;
    char* start = static_cast<char*>(std::malloc(bytes));
    page_locked[start] = bytes;
    return *made = start, OK;
}
int cuMemFreeHost(void* at) {
    if (page_locked.erase(static_cast<char*>(at)) == 0) return INVALID;
    return std::free(at), OK;
}
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
    if (!holds(to, bytes) || !holds(from, bytes, page_locked)) return INVALID;
    return cross(to, from, bytes), OK;
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
    if (!holds(from, bytes) || !holds(to, bytes, page_locked)) return INVALID;
    return cross(to, from, bytes), OK;
}

int cuEventCreate(void** event, unsigned flags) {
    if (flags != 0) return INVALID;
    return exhausted() ? OUT_OF_MEMORY : (*event = new Time(), OK);
}
int cuEventDestroy_v2(void* event) { return delete static_cast<Time*>(event), OK; }
int cuEventRecord(void* event, void*) {
    // In a capture it would make no node, and the times would be none of the graph's.
    if (const int why = waits()) return why;
    return *static_cast<Time*>(event) = std::chrono::steady_clock::now(), OK;
}
int cuEventRecordWithFlags(void* event, void*, unsigned flags) {
    if (!capturing || flags != 1) return INVALID;
    const bool asleep = asked("CUDACPU_MISTAKE", "no-events");
    capturing->push_back([=] { if (!asleep) *static_cast<Time*>(event) = std::chrono::steady_clock::now(); });
    return OK;
}
int cuEventSynchronize(void*) { return waits(); }
int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    *milliseconds = std::chrono::duration<float, std::milli>(*static_cast<Time*>(end) - *static_cast<Time*>(start)).count();
    return OK;
}

int cuModuleLoadData(void** module, const void* image) {
    const std::string name = static_cast<const char*>(image);
    if (lost) return lost;
    if (strikes("module", module_name(name))) return NO_BINARY;
    if (exhausted()) return OUT_OF_MEMORY;
    return *module = new std::string(name), OK;
}
int cuModuleUnload(void* module) { return delete static_cast<std::string*>(module), OK; }
int cuModuleGetFunction(const void** function, void* module, const char* name) {
    const std::string wanted = module_name(*static_cast<std::string*>(module)) + " " + name;
    for (const cudacpu::Entry& entry : ENTRIES) {
        if (wanted == entry.name) return *function = &entry, OK;
    }
    return NOT_FOUND;
}
int cuFuncSetAttribute(const void*, int, int) { return OK; }
int cuLaunchKernel(const void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void*, void** parameters, void**) {
    if (capturing && asked("CUDACPU_REFUSES", "captured-launch")) return spoilt = true, CAPTURE_UNSUPPORTED;
    const auto* entry = static_cast<const cudacpu::Entry*>(function);
    if (lost) return lost;
    if (const int why = fault_of(entry->name)) return why;
    if (lost) return OK; // told by the next call
    std::vector<cudacpu::Any> pointers;
    const auto maps = std::make_shared<std::vector<Map>>(entry->pointers); // lives as long as the launch
    for (unsigned i = 0; i < entry->pointers; i++) {
        Map& map = (*maps)[i];
        const bool mapped = entry->maps >> i & 1;
        if (mapped) memcpy(&map, parameters[i], sizeof map);
        void* at = mapped ? map.at : *static_cast<void**>(parameters[i]);
        if (!holds(at, mapped ? map.rows * map.apart : 1)) return INVALID;
        pointers.push_back({mapped ? &map : at});
    }
    const char* const given = static_cast<const char*>(parameters[entry->pointers]);
    const std::vector<char> value(given, given + entry->bytes);
    const auto run = [=] {
        (void)maps;
        const auto call = [&] { entry->call(pointers.data(), value.data(), value.size()); };
        cudacpu::launch(dim3(gx, gy, gz), dim3(bx, by, bz), shared, 0, entry->cluster, call);
    };
    if (capturing) capturing->push_back(run);
    else run();
    return OK;
}

int cuTensorMapEncodeTiled(void* made, unsigned type, unsigned rank, void* at, const uint64_t* extents, const uint64_t* apart,
                           const unsigned* box, const unsigned* steps, unsigned interleave, unsigned swizzle, unsigned, unsigned fill) {
    // By CUtensorMapDataType in cuda.h; two extents and 128 bytes a line are all that is emulated.
    const unsigned widths[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2}, width = type < 10 ? widths[type] : 0;
    const bool aligned = reinterpret_cast<uintptr_t>(at) % 16 == 0 && apart[0] % 16 == 0 && apart[0] >= extents[0] * width;
    if (rank != 2 || !aligned || box[0] * width != 128 || box[1] - 1 > 255 || steps[0] != 1 || steps[1] != 1) return INVALID;
    if (interleave != 0 || swizzle != 3 || fill != 0) return INVALID;
    const Map map = {static_cast<unsigned char*>(at), extents[0], extents[1], apart[0], box[0], box[1], width, {}};
    return memcpy(made, &map, sizeof map), OK;
}

int cuStreamBeginCapture_v2(void*, int mode) {
    if (asked("CUDACPU_REFUSES", "capture")) return NOT_SUPPORTED;
    if (capturing || mode != 1) return INVALID;
    capturing = std::make_unique<Graph>();
    return spoilt = false, OK;
}
int cuStreamEndCapture(void*, Graph** made) {
    if (!capturing) return INVALID;
    const bool refused = asked("CUDACPU_REFUSES", "end");
    *made = spoilt || refused ? nullptr : (allocated += NODES, capturing.release());
    capturing.reset();
    return refused ? NOT_SUPPORTED : spoilt ? CAPTURE_INVALIDATED : OK;
}
int cuGraphInstantiateWithFlags(Graph** made, const Graph* of, unsigned long long flags) {
    if (asked("CUDACPU_REFUSES", "instantiate")) return NOT_SUPPORTED;
    if (exhausted()) return OUT_OF_MEMORY;
    return *made = new Graph(*of), allocated += NODES, flags == 0 ? OK : INVALID;
}
int cuGraphUpload(Graph*, void*) { return asked("CUDACPU_REFUSES", "upload") ? NOT_SUPPORTED : exhausted() ? OUT_OF_MEMORY : OK; }
int cuGraphLaunch(Graph* graph, void*) {
    if (asked("CUDACPU_REFUSES", "graph-launch")) return NOT_SUPPORTED;
    for (const auto& node : *graph) node();
    return OK;
}
int cuGraphExecDestroy(Graph* graph) { return delete graph, allocated -= NODES, OK; }
int cuGraphDestroy(Graph* graph) { return delete graph, allocated -= NODES, OK; }

int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, OK; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 1, OK; }
int nvrtcGetSupportedArchs(int* known) { return known[0] = compiled_for(), OK; }
int nvrtcCreateProgram(void** program, const char* text, const char* name, int, const char* const*, const char* const*) {
    // One file is rendered for several storage types; the text begins with the one it is for.
    const std::string start = std::string(text).substr(0, 256), prefix = "using T = ";
    const size_t at = start.find(prefix), from = at + prefix.size();
    const bool typed = at != std::string::npos;
    return *program = new Program{name + (typed ? "_" + start.substr(from, start.find(';', from) - from) : ""), ""}, OK;
}
int nvrtcDestroyProgram(void** program) { return delete static_cast<Program*>(*program), OK; }
int nvrtcCompileProgram(void* program, int count, const char* const* options) {
    auto& made = *static_cast<Program*>(program);
    if (getenv("CUDACPU_NO_COMPILER")) {
        made.log = "the stand-in compiles nothing now\n";
        return 6;
    }
    const std::string own = "sm_" + std::to_string(compiled_for()) + (compiled_for() == 90 ? "a" : "");
    if (count == 0 || options[0] != "--gpu-architecture=" + own) {
        made.log = "the stand-in compiles for " + own + " only\n";
        return 6;
    }
    std::string known = made.name;
    for (int i = 0; i < count; i++) known += std::string(" ") + options[i];
    const auto meant = [&](const char* variable) { return getenv(variable) && known.find(getenv(variable)) != std::string::npos; };
    if (meant("CUDACPU_SPILLS")) {
        made.log = "ptxas error   : Registers are spilled to local memory in function 'stand_in', 8 bytes spill stores, 8 bytes spill loads\n";
        return 6;
    }
    for (const cudacpu::Entry& entry : ENTRIES) {
        const std::string module = module_name(made.name) + " ", name = entry.name;
        if (name.rfind(module, 0) != 0) continue;
        made.log += "ptxas info    : Compiling entry function '" + name.substr(module.size()) + "' for '" + own + "'\n";
        made.log += "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        made.log += "ptxas info    : Used 42 registers, used 1 barriers, 96 bytes smem\n";
    }
    if (meant("CUDACPU_SERIALISES")) {
        made.log += "ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized in the function 'stand_in'\n";
    }
    return OK;
}
int nvrtcGetProgramLogSize(void* program, size_t* size) { return *size = static_cast<Program*>(program)->log.size() + 1, OK; }
int nvrtcGetProgramLog(void* program, char* log) { return strcpy(log, static_cast<Program*>(program)->log.c_str()), OK; }
int nvrtcGetCUBINSize(void* program, size_t* size) { return *size = static_cast<Program*>(program)->name.size() + 1, OK; }
int nvrtcGetCUBIN(void* program, char* code) { return strcpy(code, static_cast<Program*>(program)->name.c_str()), OK; }

} // extern "C"

// A stand-in for NVML: as many of its functions as the cuda backend calls, for the one board of `driver.h`.
//
// CUDACPU_NVML scripts it, words apart by commas: `closed` and `lost` refuse the start and every question; `elsewhere` has its board at
// another address; `no-energy`, `no-power`, `no-times`, `no-clocks` answer NOT_SUPPORTED; `stuck` counts nothing; `mig` is shared;
// `capped` and `hot` hold the clocks down. Energy is 100 W, told every 20 ms.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, NOT_LOADED = 9, LOST = 15;
int board; // its address is the board's handle

bool said(const char* word) {
    const char* all = getenv("CUDACPU_NVML");
    const char* at = all ? strstr(all, word) : nullptr;
    const char after = at ? at[strlen(word)] : 'x';
    return at && (at == all || at[-1] == ',') && (after == 0 || after == ',');
}

long long ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

int answer(void* device, const char* lacking = nullptr) {
    if (device != &board) return INVALID;
    if (said("lost")) return LOST;
    return lacking && said(lacking) ? NOT_SUPPORTED : OK;
}

// The calls are wrong without it.
bool started;

} // namespace

extern "C" {

int nvmlInit_v2() {
    if (said("closed")) return NOT_LOADED;
    return started = true, OK;
}
int nvmlShutdown() { return OK; }
int nvmlSystemGetDriverVersion(char* version, unsigned length) {
    if (!started) return INVALID;
    return snprintf(version, length, "580.95.05"), OK;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
    if (!started) return INVALID;
    if (said("elsewhere") || strcmp(id, "00000000:3B:00.0") != 0) return NOT_FOUND;
    return *device = &board, OK;
}
int nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* mw) { return *mw = 700000, answer(device, "no-power"); }
int nvmlDeviceGetClockInfo(void* device, int clock, unsigned* mhz) {
    if (clock != 1 && clock != 2) return INVALID;
    return *mhz = clock == 1 ? (said("capped") ? 1410 : 1980) : 2619, answer(device, "no-clocks");
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* mw) {
    *mw = 100000 + ns() / 20000000 % 2; // moves by a mW every 20 ms
    return answer(device, "no-power");
}
int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) { return *celsius = 61, sensor == 0 ? answer(device) : INVALID; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
    *reasons = (said("capped") ? 4 : 0) | (said("hot") ? 64 : 0);
    return answer(device);
}
int nvmlDeviceGetViolationStatus(void* device, int policy, unsigned long long* times) {
    if (policy != 0 && policy != 1) return INVALID;
    times[0] = ns() / 1000;
    times[1] = said(policy == 0 ? "capped" : "hot") ? ns() : 0;
    return answer(device, "no-times");
}
int nvmlDeviceGetMigMode(void* device, unsigned* current, unsigned* pending) { return *current = *pending = said("mig"), answer(device); }
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* mj) {
    return *mj = said("stuck") ? 7 : ns() / 20000000 * 2000, answer(device, "no-energy");
}

} // extern "C"

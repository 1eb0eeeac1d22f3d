// Runs a list of launches: reads tensors from files, surrounds them with guards of NaN, writes the outputs back.
//
// One job a line, fields apart by blanks:
//   MODULE ENTRY grid(3) block(3) shared order WORDS word… TENSORS tensor…
// A tensor is `in`, `out` or `inout`, then `bytes file`, or `map bytes file columns width box_columns box_rows`.
// `shared` is shared memory sized at launch, in bytes, `words` are the by-value struct. An `out` tensor starts as NaN, any other as its file; `out` and `inout` are written back. A `map` is
// one of a tensor that is read. For each job that ends, a line `ok` or `guard N` (tensor N was overrun) goes to standard output.
#pragma once
#include "cudacpu.h"

#include <fstream>
#include <iostream>
#include <sstream>

namespace cudacpu {

// Becomes whatever pointer a kernel asks for, or the map there.
struct Any {
    void* at;
    template <class T> operator T*() const { return static_cast<T*>(at); }
    operator Map() const { return *static_cast<const Map*>(at); }
};

// Which of a kernel's parameters are maps, a bit each.
template <class... P> constexpr unsigned maps_of(void (*)(P...)) {
    unsigned maps = 0, bit = 1;
    ((maps |= std::is_same<P, Map>::value ? bit : 0, bit <<= 1), ...);
    return maps;
}

// `bytes` is 0 where the caller does not know the size, as a driver does not.
template <class T> T by_value(const void* at, size_t bytes) {
    T value{};
    if (bytes != 0 && bytes != sizeof value) die("the by-value struct has another size");
    memcpy(&value, at, sizeof value);
    return value;
}

struct Entry {
    const char* name; // MODULE and ENTRY, apart by a blank
    unsigned pointers; // taken before the by-value struct, maps among them
    unsigned maps;     // which of them are
    Cluster cluster;
    size_t bytes;      // of the by-value struct
    void (*call)(const Any* tensors, const void* value, size_t bytes);
};

struct Tensor {
    static constexpr size_t GUARD = GUARDED ? 256 : 0;
    bool output;
    size_t bytes;
    std::string file;
    char* block;
    bool mapped;
    Map map;

    char* data() const { return block + GUARD; }

    void read(std::istream& from) {
        std::string role;
        from >> role >> bytes >> file;
        output = role == "out" || role == "inout";
        mapped = role == "map";
        const size_t whole = bytes + 2 * GUARD;
        void* made = nullptr;
        if (posix_memalign(&made, 64, whole) != 0) die("no memory for a tensor");
        block = static_cast<char*>(made);
        memset(block, 0xff, whole);
        if (role != "out" && !std::ifstream(file, std::ios::binary).read(data(), bytes)) die("an input file is too short");
        if (!mapped) return;
        map = {reinterpret_cast<unsigned char*>(data())};
        from >> map.columns >> map.width >> map.box_columns >> map.box_rows;
        map.apart = map.columns * map.width;
        map.rows = bytes / map.apart;
    }

    bool intact() const {
        const auto guard = [](const char* at) { return std::all_of(at, at + GUARD, [](char c) { return c == '\xff'; }); };
        return guard(block) && guard(data() + bytes);
    }

    void write() const {
        if (output) std::ofstream(file, std::ios::binary).write(data(), bytes);
    }
};

inline void run_job(const std::string& line, const Entry* entries, size_t count) {
    std::istringstream in(line);
    std::string module, name;
    dim3 grid, block;
    unsigned order;
    size_t shared, length;
    in >> module >> name >> grid.x >> grid.y >> grid.z >> block.x >> block.y >> block.z >> shared >> order >> length;
    std::vector<unsigned> words(length);
    for (unsigned& word : words) in >> word;
    in >> length;
    std::vector<Tensor> tensors(length);
    std::vector<Any> pointers;
    for (Tensor& tensor : tensors) {
        tensor.read(in);
        pointers.push_back({tensor.mapped ? static_cast<void*>(&tensor.map) : tensor.data()});
    }
    const auto entry = std::find_if(entries, entries + count, [&](const Entry& e) { return module + " " + name == e.name; });
    if (!in || entry == entries + count) die(("bad job: " + line).c_str());
    launch(grid, block, shared, order, entry->cluster, [&] { entry->call(pointers.data(), words.data(), words.size() * sizeof(unsigned)); });
    const auto broken = std::find_if(tensors.begin(), tensors.end(), [](const Tensor& t) { return !t.intact(); });
    for (const Tensor& tensor : tensors) {
        tensor.write();
        std::free(tensor.block);
    }
    if (broken == tensors.end()) std::cout << "ok" << std::endl;
    else std::cout << "guard " << broken - tensors.begin() << std::endl;
}

inline int run_jobs(const char* file, const Entry* entries, size_t count) {
    std::ifstream jobs(file);
    for (std::string line; std::getline(jobs, line);) run_job(line, entries, count);
    return 0;
}

} // namespace cudacpu

//! Mutants: textual patches of the shipped sources that must all be refused.
//!
//! A check that cannot fail proves nothing. Each mutant is a small, plausible mistake; `verify --mutants` runs them and the list
//! of survivors must be empty. Faults that need no source (an output of NaN, one shifted by one, one that goes wrong after the
//! tenth launch, one that stops writing) are scripted on the fake device instead.

use crate::error::{Error, Result};
use crate::plan::{Code, Language, Plan};

/// One patch of one shipped source.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Op.
    pub op: &'static str,
    /// Variant.
    pub variant: &'static str,
    /// Language of the source.
    pub language: Language,
    /// The mistake, in a few words.
    pub name: &'static str,
    /// Text to be found, exactly once.
    pub find: &'static str,
    /// What it becomes.
    pub replace: &'static str,
}

/// All mutants.
pub const MUTANTS: &[Mutant] = &[
    wgsl("matmul", "naive", "loses the last step of k", "p < dims.k; p++", "p + 1u < dims.k; p++"),
    wgsl("matmul", "naive", "reads B transposed", "b[p * dims.n + id.x]", "b[id.x * dims.k + p]"),
    wgsl("matmul", "naive", "skips the tail guard", "id.x >= dims.n || id.y >= dims.m", "id.y >= dims.m"),
    wgsl("matmul", "tiled", "omits the barrier before reading", "workgroupBarrier();\n        for", "\n        for"),
    wgsl("matmul", "tiled", "omits the barrier after reading", "}\n        workgroupBarrier();", "}"),
    wgsl("matmul", "tiled", "loses the last k tile", "first < dims.k; first", "first + TILE < dims.k; first"),
    wgsl("matmul", "tiled", "reads its tile of B transposed", "right[p * TILE + local.x]", "right[local.x * TILE + p]"),
    wgsl(
        "matmul",
        "tiled",
        "skips the tail guard",
        "    if (row < dims.m && col < dims.n) {\n        c",
        "    if (row < dims.m) {\n        c",
    ),
    wgsl("matmul", "register", "loses the last k tile", "p < dims.k / 4u; p++", "p + 1u < dims.k / 4u; p++"),
    wgsl("matmul", "register", "takes the wrong component of A", "vec4<S>(left[i].y), r1", "vec4<S>(left[i].z), r1"),
    wgsl("matmul", "register", "stores past the last column", "row + i < dims.m && at < dims.n", "row + i < dims.m"),
    wgsl("matmul", "register", "stores past the last row", "row + i < dims.m && col + 8u * j < cols", "col + 8u * j < cols"),
    wgsl("matmul", "blocked", "omits the barrier before sharing", "    workgroupBarrier();\n    for", "    for"),
    wgsl("matmul", "blocked", "omits the barrier after sharing", "    workgroupBarrier();\n}", "}"),
    wgsl("matmul", "blocked", "takes the wrong component of A", "vec4<S>(rows[i].y), r1", "vec4<S>(rows[i].z), r1"),
    wgsl("matmul", "blocked", "loses the last step of a tile", "p < BK / 4u", "p + 1u < BK / 4u"),
    wgsl("matmul", "blocked", "stores past the last row", "row < dims.m && col < cols", "col < cols"),
    wgsl("matmul", "blocked", "stores past the last column", "row < dims.m && col + e < dims.n", "row < dims.m"),
    wgsl(
        "matmul",
        "subgroup",
        "keeps its own vector of A",
        "left[i] = subgroupShuffle(held[i], quad + q);\n            }\n            for (var j = 0u; j < TN; j++) {\n                let",
        "left[i] = held[i];\n            }\n            for (var j = 0u; j < TN; j++) {\n                let",
    ),
    wgsl(
        "matmul",
        "subgroup",
        "loads what the quad's first lane does",
        "let mine = first + own % 4u;\n        var held: array<vec4",
        "let mine = first;\n        var held: array<vec4",
    ),
    wgsl("matmul", "subgroup", "loses the last steps", "first < dims.k; first", "first + 4u < dims.k; first"),
    wgsl("matmul", "subgroup", "stores past the last column", "row + i < dims.m && col + 32u * j + e < dims.n", "row + i < dims.m"),
    wgsl("matmul", "coop", "loses the second half of a tile", "p < TILE; p += 8u", "p < 8u; p += 8u"),
    wgsl("matmul", "coop", "multiplies by the wrong columns", "coopMultiplyAdd(a0, b1, c01)", "coopMultiplyAdd(a0, b0, c01)"),
    wgsl("matmul", "coop", "stores past the last column", "row < dims.m && col < dims.n", "row < dims.m"),
    wgsl("matmul", "coop", "loads past the last step of A", "row < dims.m && step < dims.k", "row < dims.m"),
    wgsl("matmul", "gemv", "loses a slice", "p = lane / VECTORS; p", "p = lane / VECTORS + 1u; p"),
    wgsl("matmul", "gemv", "omits the barrier", "    workgroupBarrier();\n    let row = lane", "    let row = lane"),
    wgsl("matmul", "gemv", "mixes up the rows", "part[row * LANES + s", "part[(row ^ 1u) * LANES + s"),
    wgsl("matmul", "gemv", "starts every lane at the first step", "p = lane % SLICES; p", "p = 0u; p"),
    wgsl("conv2d", "naive", "loses the last filter row", "r < dims.kh; r++", "r + 1u < dims.kh; r++"),
    wgsl("conv2d", "naive", "wraps round the image's edge", "h < dims.h && w < dims.w", "h < dims.h"),
    wgsl("conv2d", "naive", "transposes the filter", "((channel * dims.kh + r) * dims.kw + s)", "((channel * dims.kw + s) * dims.kh + r)"),
    wgsl("conv2d", "implicit", "takes the first pixel for padding", "select(S(0), S(1), inside)", "S(1)"),
    wgsl("conv2d", "implicit", "forgets a partial sum", "(v.x + v.y) + (v.z + v.w)", "(v.x + v.y) + v.z"),
    wgsl(
        "conv2d",
        "implicit",
        "stores past its group's last channel",
        "let v = sum[i * TN + j];\n            if (own.pixel + i < pixels() && own.channel + 8u * j <= own.last)",
        "let v = sum[i * TN + j];\n            if (own.pixel + i < pixels())",
    ),
    wgsl("conv2d", "implicit", "mixes up the groups", "i / across % dims.groups", "i / across / dims.groups"),
    wgsl(
        "conv2d",
        "implicit",
        "transposes the filter of odd channels",
        "own.last) * dims.kh + r) * dims.kw + s) * depth + c",
        "own.last) * dims.kw + s) * dims.kh + r) * depth + c",
    ),
    wgsl("conv2d", "blocked", "omits the barrier before sharing", "    workgroupBarrier();\n    for", "    for"),
    wgsl("conv2d", "blocked", "omits the barrier after sharing", "    workgroupBarrier();\n}", "}"),
    wgsl("conv2d", "blocked", "mixes up the groups", "i / across % dims.groups", "i / across / dims.groups"),
    wgsl("conv2d", "blocked", "wraps round the image's edge", "h < dims.h && w < dims.w", "h < dims.h"),
    wgsl("conv2d", "blocked", "stores past its group's last channel", "dims.ow && channel < tile.end", "dims.ow"),
    wgsl("depthwise", "naive", "loses the last filter row", "r < dims.k; r++", "r + 1u < dims.k; r++"),
    wgsl("depthwise", "naive", "transposes the filter", "(r * dims.k + s) * dims.c", "(s * dims.k + r) * dims.c"),
    wgsl("depthwise", "naive", "wraps round the image's edge", "h < dims.h && w < dims.w", "h < dims.h"),
    wgsl("depthwise", "window", "does not slide its window", "window[t] = window[t + 3u];", "window[t] = window[t];"),
    wgsl("depthwise", "window", "transposes the filter", "vec4<S>(f4[(r * dims.k + s)", "vec4<S>(f4[(s * dims.k + r)"),
    wgsl("depthwise", "window", "runs past the end of its row", "min(first + length, dims.ow)", "first + length"),
    wgsl("depthwise", "window", "transposes the filter of odd channels", "S(f[(r * dims.k + s)", "S(f[(s * dims.k + r)"),
    wgsl("attention", "naive", "loses the last column", "c < dims.head_dim; c++", "c + 1u < dims.head_dim; c++"),
    wgsl("attention", "naive", "shifts the mask", "key > query +", "key >= query +"),
    wgsl("attention", "naive", "swaps heads", "head / (dims.heads / dims.kv_heads)", "head % dims.kv_heads"),
    wgsl("attention", "naive", "forgets the largest score", "exp(s[first + key] - largest)", "exp(s[first + key])"),
    wgsl("attention", "naive", "loses the last key", "key < dims.seq_kv; key++", "key + 1u < dims.seq_kv; key++"),
    wgsl("attention", "naive", "stops the reduction early", "half > 0u; half", "half > 1u; half"),
    wgsl(
        "attention",
        "flash",
        "drops the last key",
        "= select(dims.seq_kv, visible(last),",
        "= select(dims.seq_kv - 1u, visible(last) - 1u,",
    ),
    wgsl("attention", "flash", "shifts the mask", "own.lane + 8u * j < seen", "own.lane + 8u * j <= seen"),
    wgsl("attention", "flash", "forgets to rescale the outputs", "sum[i * COLS + j] *= shrunk;", ""),
    wgsl("attention", "flash", "forgets to rescale the sum", "fma(total[i], shrunk, fresh)", "total[i] + fresh"),
    wgsl("attention", "flash", "gives all heads the first one's keys", "own.keys = group.y * dims.seq_kv;", "own.keys = 0u;"),
    wgsl("attention", "flash", "sums one lane's weights only", "total[i] += maxima[", "total[i] = maxima["),
    wgsl("attention", "flash", "takes the largest score of one lane", "most = max(most, maxima[", "most = max(maxima[0], maxima["),
    wgsl("stream", "linear", "omits the barrier of the reduction", "        workgroupBarrier();", "        "),
    wgsl(
        "stream",
        "linear",
        "loses the first element of the tail",
        "let tail = max(end * 4u, head_end);",
        "let tail = max(end * 4u, head_end) + 1u;",
    ),
    wgsl("stream", "linear", "copies shifted by one vector", "out[i] = s * a[i];", "out[i] = s * a[i + 1u];"),
    wgsl("stream", "linear", "swaps the operands of triad", "fma(vec4<T>(s), a[i], b[i])", "fma(vec4<T>(s), b[i], a[i])"),
    wgsl("stream", "linear", "writes the first pass's scalar in all", "out[i] = vec4<T>(s);", "out[i] = vec4<T>(coef[0]);"),
    wgsl("stream", "linear", "stores one vector of four twice", "out[i + 2u * BLOCK] = v;", "out[i + BLOCK] = v;"),
    wgsl("stream", "linear", "copies one vector of four over its neighbour", "s * a3;", "s * a2;"),
    wgsl("stream", "linear", "adds the wrong vector of four in triad", "fma(v, a1, b1)", "fma(v, a1, b2)"),
    wgsl("fma", "chains", "stops one trip early", "trip < dims.trips", "trip + 1u < dims.trips"),
    wgsl("fma", "chains", "never grows the addend", "b += step;", "b += T();"),
    wgsl("fma", "chains", "skips half of the steps", "s += UNROLL", "s += 2u * UNROLL"),
    wgsl("ramp", "chains", "loses the last of the whole fours", "s < dims.steps / 4u", "s + 1u < dims.steps / 4u"),
    wgsl("ramp", "chains", "loses a step of the rest", "s < dims.steps % 4u", "s + 1u < dims.steps % 4u"),
    wgsl("ramp", "chains", "takes the longer lines for all", "i / 4u % 8u < dims.longer", "dims.longer > 0u"),
    wgsl("ramp", "chains", "stores past the last element", "c < dims.elements % 4u", "c < 4u"),
    wgsl("ramp", "chains", "leaves the addend out", "let b = vec4<T>(coef[1]);", "let b = vec4<T>();"),
    wgsl("launch", "counted", "begins with one", "count[0] = x[0];", "count[0] = x[0] + T(1);"),
    wgsl("launch", "counted", "does nothing in between", "count[0] += T(1);", ""),
    wgsl("launch", "counted", "does not count the last", "y[0] = counted[0] + T(1);", "y[0] = counted[0];"),
    wgsl("chase", "cycle", "leaves four hops out", "trip < dims.hops / 4u", "trip + 1u < dims.hops / 4u"),
    wgsl("chase", "cycle", "leaves one hop of four out", "let c = named(b);", "let c = b;"),
    wgsl(
        "chase",
        "cycle",
        "counts the turns of one hop in four",
        "u32(a == 0u) + u32(b == 0u) + u32(c == 0u) + u32(at == 0u)",
        "u32(at == 0u)",
    ),
    wgsl("exp", "chains", "stops one trip early", "trip < dims.trips", "trip + 1u < dims.trips"),
    wgsl("exp", "chains", "never grows the addend", "b += growth;", "b += T();"),
    wgsl("exp", "chains", "skips half of the steps", "s += 4u", "s += 8u"),
    wgsl("shared", "rotated", "stops before the last passes", "pass_ < dims.passes", "pass_ + UNROLL < dims.passes"),
    wgsl("shared", "rotated", "reads half of the tile twice", "* BLOCK) % VECTORS", "* BLOCK) % (VECTORS / 2u)"),
    wgsl("shared", "rotated", "leaves out a quarter of each vector", "sum.x + sum.y + sum.z + sum.w", "sum.x + sum.y + sum.z"),
    wgsl("shared", "rotated", "loses the last vectors of the tile", "v < VECTORS;", "v + BLOCK < VECTORS;"),
    cuda("matmul", "naive", "drops the last step of k", "p < d.k", "p + 1 < d.k"),
    cuda("matmul", "naive", "starts k at one", "unsigned p = 0", "unsigned p = 1"),
    cuda("matmul", "naive", "skips the row guard", "row >= d.m || col >= d.n", "col >= d.n"),
    cuda("matmul", "naive", "skips the column guard", "row >= d.m || col >= d.n", "row >= d.m"),
    cuda("matmul", "naive", "swaps the indices of B", "b[p * d.n + col]", "b[col * d.k + p]"),
    cuda("matmul", "naive", "writes C transposed", "c[row * d.n + col]", "c[col * d.m + row]"),
    cuda("matmul", "naive", "writes nothing", "c[row * d.n + col] = T(sum);", ""),
    cuda("matmul", "tiled", "omits the barrier before reading", "        __syncthreads(); // both tiles are whole\n", ""),
    cuda("matmul", "tiled", "omits the barrier after reading", "        __syncthreads(); // and no longer needed\n", ""),
    cuda("matmul", "tiled", "loses the last k tile", "first < d.k; first", "first + TILE < d.k; first"),
    cuda("matmul", "tiled", "reads its tile of B transposed", "right[p][x];", "right[x][p];"),
    cuda("matmul", "tiled", "skips the tail guard", "if (row < d.m && col < d.n) c", "if (row < d.m) c"),
    cuda("matmul", "register", "loses the last vector of k", "p < d.k / 4", "p + 1 < d.k / 4"),
    cuda("matmul", "register", "takes the wrong component of A", "S(left[i].v[q])", "S(left[i].v[3 - q])"),
    cuda("matmul", "register", "stores past the last row", "row + i < d.m && col + 8 * j < cols", "col + 8 * j < cols"),
    cuda("matmul", "register", "stores past the last column", "row + i < d.m && at < d.n", "row + i < d.m"),
    cuda("matmul", "register", "loses the last step of a ragged k", "p < d.k; ++p", "p + 1 < d.k; ++p"),
    cuda("matmul", "pipelined", "loses the last whole tile", "first = BK; first < d.k;", "first = BK; first + BK < d.k;"),
    cuda(
        "matmul",
        "pipelined",
        "omits the barrier",
        "        __syncthreads(); // the other half is whole, and nobody reads this one any more\n",
        "",
    ),
    cuda("matmul", "pipelined", "stays in one half", "first += BK, now ^= 1", "first += BK"),
    cuda("matmul", "pipelined", "multiplies one step twice", "multiply(sum, step[1]);", "multiply(sum, step[0]);"),
    cuda("matmul", "pipelined", "forgets the swap when it stores", "[swapped(at.row, at.step)]", "[at.row]"),
    cuda("matmul", "pipelined", "omits the barrier of ragged shapes", "        __syncthreads(); // the tile is whole\n", ""),
    cuda("matmul", "pipelined", "takes what lies past k for zeros", "row < d.m && p < d.k ? a", "row < d.m ? a"),
    cuda("matmul", "pipelined", "skips the tail guard", "if (row < d.m && col < d.n) c", "if (row < d.m) c"),
    cuda(
        "matmul",
        "mma",
        "does not wait for its copies",
        "        copies_wait<STAGES - 2>(); // this lane's share of the tile has come,\n",
        "",
    ),
    cuda("matmul", "mma", "waits for one group too few", "copies_wait<STAGES - 2>()", "copies_wait<STAGES - 1>()"),
    cuda(
        "matmul",
        "mma",
        "omits the barrier",
        "        __syncthreads();           // every lane's has, and nobody reads the stage that is filled next\n",
        "",
    ),
    cuda("matmul", "mma", "overwrites the stage in use", "next = STAGES - 1;", "next = 0;"),
    cuda("matmul", "mma", "loses the last tile", "tile = 0; tile < tiles; ++tile", "tile = 0; tile + 1 < tiles; ++tile"),
    cuda("matmul", "mma", "copies what lies past k", "row < d.m && p < d.k);", "row < d.m);"),
    cuda(
        "matmul",
        "mma",
        "loads A where it does not lie",
        "row + 16 * i + lane % 16, 2 * step + lane / 16",
        "row + 16 * i + lane % 16, 2 * step",
    ),
    cuda(
        "matmul",
        "mma",
        "takes the fragments of another step",
        "load(f[(step + 1) % 2], stage, step + 1, row, col)",
        "load(f[(step + 1) % 2], stage, step, row, col)",
    ),
    cuda("matmul", "mma", "stores past the last column", "if (at + 1 < d.n) line[at + 1]", "line[at + 1]"),
    cuda("matmul", "mma", "walks the bands wrong", "within / high * BN", "within % high * BN"),
    cuda(
        "matmul",
        "wgmma",
        "loses the last tile",
        "step = 0; step < steps; ++step, turn.advance()) {\n            barrier_wait",
        "step = 0; step + 1 < steps; ++step, turn.advance()) {\n            barrier_wait",
    ),
    cuda("matmul", "wgmma", "adds to the tile before", "team, step > 0);", "team, true);"),
    cuda("matmul", "wgmma", "takes the steps of A twice", "a + i * 16 * sizeof(T) / 16", "a + i / 2 * 2 * 16 * sizeof(T) / 16"),
    cuda("matmul", "wgmma", "walks the bands wrong", "within / high * BN", "within % high * BN"),
    cuda("matmul", "wgmma", "stores past the last row", "        if (row < d.m) {", "        if (row < d.m + 1) {"),
    cuda("conv2d", "naive", "drops the last filter row", "r < d.kh", "r + 1 < d.kh"),
    cuda("conv2d", "naive", "takes padding for image", "if (w >= d.w) continue;", ""),
    cuda("conv2d", "naive", "transposes the filter", "((channel * d.kh + r) * d.kw + s)", "((channel * d.kw + s) * d.kh + r)"),
    cuda("conv2d", "naive", "mixes up the groups", "channel / (d.c_out / d.groups) * depth", "channel % d.groups * depth"),
    cuda("conv2d", "implicit", "loses the last whole tile", "first = BK; first < depth;", "first = BK; first + BK < depth;"),
    cuda(
        "conv2d",
        "implicit",
        "omits the barrier",
        "        __syncthreads(); // the other half is whole, and nobody reads this one any more\n",
        "",
    ),
    cuda("conv2d", "implicit", "takes padding for image", "h < d.h && w < d.w && at.r < d.kh", "h < d.h && at.r < d.kh"),
    cuda("conv2d", "implicit", "forgets the dilation", "from.w + at.s * d.dilation", "from.w + at.s"),
    cuda("conv2d", "implicit", "carries a tap too few", "if (++s == d.kw) s = 0, ++r;", "if (++s > d.kw) s = 0, ++r;"),
    cuda("conv2d", "implicit", "mixes up the groups", "i / across % d.groups;", "i / across / d.groups;"),
    cuda("conv2d", "implicit", "stores past its group's last channel", "if (channel + e < own.end) at[e]", "at[e]"),
    cuda(
        "conv2d",
        "implicit",
        "forgets the swap when it loads",
        "from + swapped(first + i / 4 * APART, p)",
        "from + (first + i / 4 * APART)",
    ),
    cuda("depthwise", "window", "does not slide its window", "window[t / 3][t % 3] = window[t / 3 + 1][t % 3];", ";"),
    cuda("depthwise", "window", "transposes the filter", "filters[t / 3][t % 3]);", "filters[t % 3][t / 3]);"),
    cuda("depthwise", "window", "runs past the end of its row", "min(first + STRIP, d.ow)", "first + STRIP"),
    cuda("depthwise", "window", "transposes the filter of other sizes", "load<W>(f, (r * d.k + s)", "load<W>(f, (s * d.k + r)"),
    cuda("depthwise", "window", "takes padding for image", "if (h < d.h && w < d.w) return", "if (h < d.h) return"),
    cuda("depthwise", "window", "keeps a column at stride 2", "d.stride == 2 ? window[2][r] : ", "d.stride == 2 ? window[1][r] : "),
    cuda("depthwise", "naive", "drops the last filter row", "r < d.k", "r + 1 < d.k"),
    cuda("depthwise", "naive", "drops the last filter column", "s < d.k", "s + 1 < d.k"),
    cuda("depthwise", "naive", "swaps filter rows and columns", "(r * d.k + s)", "(s * d.k + r)"),
    cuda("depthwise", "naive", "skips the tail guard", "if (lane >= (unsigned long long)d.n * d.oh * d.ow * d.c) return;", ""),
    cuda("depthwise", "naive", "takes padding for image", "if (w >= d.w) continue;", ""),
    cuda("depthwise", "naive", "forgets the dilation", "r * d.dilation", "r"),
    cuda("depthwise", "naive", "forgets the stride", "column * d.stride", "column"),
    cuda("attention", "naive", "drops the last column", "c < d.head_dim; ++c", "c + 1 < d.head_dim; ++c"),
    cuda("attention", "naive", "shifts the mask", "key > query +", "key >= query +"),
    cuda("attention", "naive", "swaps heads", "head / (d.heads / d.kv_heads)", "head % d.kv_heads"),
    cuda("attention", "naive", "forgets the largest score", "expf(S(own[key]) - largest)", "expf(S(own[key]))"),
    cuda("attention", "naive", "sums one warp only", "return fold(part[0], part[1]);", "return part[0];"),
    cuda("attention", "naive", "omits a barrier", "    __syncthreads();\n    return fold", "    return fold"),
    cuda("attention", "naive", "loses the last key", "key < d.seq_kv; ++key", "key + 1 < d.seq_kv; ++key"),
    cuda("attention", "flash", "forgets to rescale the outputs", "sum[i][j].x * shrunk, sum[i][j].y", "sum[i][j].x, sum[i][j].y"),
    cuda("attention", "flash", "forgets to rescale the sum", "total[i] *= shrunk;", ""),
    cuda("attention", "flash", "shifts the mask", "16 * j < seen ?", "16 * j <= seen ?"),
    cuda("attention", "flash", "drops the last tile of keys", "first < reach; first += BK", "first + BK < reach; first += BK"),
    cuda("attention", "flash", "gives all heads the first one's values", "v + blockIdx.y * d.seq_kv * d.head_dim", "v"),
    cuda("attention", "flash", "stores rows past the end", "if (row > last_row) continue;", ""),
    cuda("attention", "flash", "reads keys where they were not put", "QUADS + (c ^ tx % 8)]", "QUADS + c]"),
    cuda(
        "attention",
        "flash",
        "overwrites values that are still read",
        "        __syncthreads();\n        fill<D, WHOLE>(tile, keys",
        "        fill<D, WHOLE>(tile, keys",
    ),
    cuda(
        "attention",
        "flash",
        "reads values before all are there",
        "fill<D, WHOLE>(tile, values, first, reach, d.head_dim);\n        __syncthreads();",
        "fill<D, WHOLE>(tile, values, first, reach, d.head_dim);",
    ),
    cuda(
        "stream",
        "linear",
        "makes one pass too few in read",
        "n < d.passes; ++n, s += growth) {",
        "n + 1 < d.passes; ++n, s += growth) {",
    ),
    cuda(
        "stream",
        "linear",
        "makes one pass too few elsewhere",
        "n < d.passes; ++n, s += growth) pass",
        "n + 1 < d.passes; ++n, s += growth) pass",
    ),
    cuda("stream", "linear", "never halves the sum", "kind.sum[u] *= T(0.5);", ""),
    cuda("stream", "linear", "skips the head", "sweep<1>(kind, p.start, p.head, s);", ""),
    cuda("stream", "linear", "skips the tail", "sweep<1>(kind, p.tail, p.stop, s);", ""),
    cuda("stream", "linear", "skips the last wide step", "p.tail / WIDE, s);", "max(p.tail / WIDE, 1u) - 1, s);"),
    cuda("stream", "linear", "unrolls past the end", "last - i > (UNROLL - 1) * BLOCK", "last - i > (UNROLL - 2) * BLOCK"),
    cuda("stream", "linear", "swaps the arrays of triad", "x.b.v[l] + s * x.a.v[l]", "x.a.v[l] + s * x.b.v[l]"),
    cuda("stream", "linear", "forgets the scalar in copy", "y.v[l] = s * x.v[l];", "y.v[l] = x.v[l];"),
    cuda("stream", "linear", "omits the barrier", "        __syncthreads();\n", ""),
    cuda("stream", "linear", "stops the reduction early", "half > 0; half /= 2", "half > 1; half /= 2"),
    cuda("stream", "linear", "reads one part beyond", "min(from + d.part, end)", "min(from + d.part + 1, end)"),
    cuda("matrix", "mma", "stops one trip early", "trip < d.trips", "trip + 1 < d.trips"),
    cuda("matrix", "mma", "leaves a product out", "i < 32; ++i", "i < 31; ++i"),
    cuda("matrix", "mma", "takes a row for another", "i / 4 * 16 + i % 2 * 8 + lane / 4", "i / 4 * 16 + lane / 4"),
    cuda("matrix", "mma", "swaps the halves of k", "p * 8 + j % 2 * 4 + lane % 4", "p * 8 + (1 - j % 2) * 4 + lane % 4"),
    cuda("matrix", "wgmma", "stops eight trips early", "trip < d.trips", "trip + BATCH < d.trips"),
    cuda("matrix", "wgmma", "leaves a product out", "i < BATCH * PRODUCTS", "i + 1 < BATCH * PRODUCTS"),
    cuda("matrix", "wgmma", "lays B down as A", "place(i % N, i / N), b[i]", "place(i / K % N, i % K), b[i]"),
    cuda("matrix", "wgmma", "leaves a warp out", "+ totals[3][col])", "+ totals[2][col])"),
    cuda("fma", "chains", "stops one trip early", "trip < d.trips", "trip + 1 < d.trips"),
    cuda("fma", "chains", "leaves a step out", "u < 8", "u < 7"),
    cuda("fma", "chains", "never lets b grow", "b += growth;", ""),
    cuda("fma", "chains", "lets b grow too early", "v[c] = a * v[c] + b;", "v[c] = a * v[c] + (b + growth);"),
    cuda("fma", "chains", "skips the store's guard", "if (c * lanes + lane < d.elements) y", "y"),
    cuda("fma", "chains", "mixes up the chains", "y[c * lanes + lane] = v[c];", "y[c * lanes + lane] = v[CHAINS - 1 - c];"),
    cuda("ramp", "chains", "loses a step", "s < d.steps", "s + 1 < d.steps"),
    cuda("ramp", "chains", "takes the longer lines for all", "if (i / 4 % 8 < d.longer)", "if (d.longer)"),
    cuda("ramp", "chains", "stores past the last element", "if (4 * i + c < d.elements) y", "y"),
    cuda("ramp", "chains", "leaves the addend out", "= a * x.v[c] + b;", "= a * x.v[c];"),
    cuda("launch", "counted", "begins with one", "count[0] = x[0];", "count[0] = x[0] + T(1);"),
    cuda("launch", "counted", "does nothing in between", "count[0] += T(1);", "count[0] += T(0);"),
    cuda("launch", "counted", "does not count the last", "y[0] = count[0] + T(1);", "y[0] = count[0];"),
    cuda("chase", "cycle", "leaves the last hops out", "trip < d.hops / 16", "trip + 1 < d.hops / 16"),
    cuda("chase", "cycle", "leaves one hop of sixteen out", "u < 16", "u < 15"),
    cuda("chase", "cycle", "starts a line late", "unsigned at = one", "unsigned at = one + d.line"),
    cuda("exp", "chains", "stops one trip early", "trip < d.trips", "trip + 1 < d.trips"),
    cuda("exp", "chains", "never lets b grow", "b += growth;", ""),
    cuda("exp", "chains", "leaves a step out", "u < 4", "u < 3"),
    cuda("shared", "rotated", "stops before the last passes", "pass < d.passes", "pass + UNROLL < d.passes"),
    cuda("shared", "rotated", "reads half of the tile twice", "* BLOCK) % VECTORS", "* BLOCK) % (VECTORS / 2)"),
    cuda("shared", "rotated", "omits the barrier before reading", "__syncthreads(); // the tile is whole", ""),
    cuda("shared", "rotated", "leaves out a quarter of each vector", "a + b + c + e", "a + b + c"),
];

const fn wgsl(op: &'static str, variant: &'static str, name: &'static str, find: &'static str, replace: &'static str) -> Mutant {
    Mutant { op, variant, language: Language::Wgsl, name, find, replace }
}

const fn cuda(op: &'static str, variant: &'static str, name: &'static str, find: &'static str, replace: &'static str) -> Mutant {
    Mutant { op, variant, language: Language::Cuda, name, find, replace }
}

/// The mutant of that name for a plan's source.
///
/// # Errors
/// [`Error::Usage`] where there is none.
pub fn find(plan: &Plan, name: &str) -> Result<&'static Mutant> {
    let of = |m: &&Mutant| m.op == plan.op && m.variant == plan.variant && m.language == plan.language && m.name == name;
    MUTANTS
        .iter()
        .find(of)
        .ok_or_else(|| Error::usage(format!("{}/{} has no mutant '{name}' in {:?}", plan.op, plan.variant, plan.language)))
}

impl Mutant {
    /// Patches the plan's text.
    ///
    /// # Errors
    /// [`Error::Usage`] where the text does not hold `find` exactly once: the source changed and the mutant did not.
    pub fn apply(&self, plan: &mut Plan) -> Result<()> {
        let text = match &mut plan.code {
            Code::Wgsl(text) | Code::Cuda { text, .. } => text,
            Code::Host(_) => return Err(Error::usage(format!("mutant '{}': a Rust kernel has no text to patch", self.name))),
        };
        if text.matches(self.find).count() != 1 {
            return Err(Error::usage(format!(
                "mutant '{}' of {}/{}: its text is not found exactly once in the source; mend the table",
                self.name, self.op, self.variant
            )));
        }
        *text = text.replace(self.find, self.replace);
        Ok(())
    }
}

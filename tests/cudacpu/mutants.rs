//! Textual patches of the shipped CUDA sources, each of which must be refused.

/// One patch: `from` stands in the source exactly once.
pub struct Mutant {
    pub op: &'static str,
    pub variant: &'static str,
    pub what: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

const fn matmul(what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { op: "matmul", variant: "naive", what, from, to }
}

const fn depthwise(what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { op: "depthwise", variant: "naive", what, from, to }
}

const fn stream(what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { op: "stream", variant: "linear", what, from, to }
}

const fn fma(what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { op: "fma", variant: "chains", what, from, to }
}

pub const MUTANTS: &[Mutant] = &[
    matmul("drops the last step of k", "p < d.k", "p + 1 < d.k"),
    matmul("starts k at one", "unsigned p = 0", "unsigned p = 1"),
    matmul("skips the row guard", "row >= d.m || col >= d.n", "col >= d.n"),
    matmul("skips the column guard", "row >= d.m || col >= d.n", "row >= d.m"),
    matmul("swaps the indices of B", "b[p * d.n + col]", "b[col * d.k + p]"),
    matmul("writes C transposed", "c[row * d.n + col]", "c[col * d.m + row]"),
    matmul("writes nothing", "c[row * d.n + col] = T(sum);", ""),
    depthwise("drops the last filter row", "r < d.k", "r + 1 < d.k"),
    depthwise("drops the last filter column", "s < d.k", "s + 1 < d.k"),
    depthwise("swaps filter rows and columns", "(r * d.k + s)", "(s * d.k + r)"),
    depthwise("skips the tail guard", "if (lane >= (unsigned long long)d.n * d.oh * d.ow * d.c) return;", ""),
    depthwise("takes padding for image", "if (w >= d.w) continue;", ""),
    depthwise("forgets the dilation", "r * d.dilation", "r"),
    depthwise("forgets the stride", "column * d.stride", "column"),
    stream("makes one pass too few in read", "n < d.passes; ++n, s += growth) {", "n + 1 < d.passes; ++n, s += growth) {"),
    stream("makes one pass too few elsewhere", "n < d.passes; ++n, s += growth) pass", "n + 1 < d.passes; ++n, s += growth) pass"),
    stream("never halves the sum", "kind.sum[u] *= T(0.5);", ""),
    stream("skips the head", "sweep<1>(kind, p.start, p.head, s);", ""),
    stream("skips the tail", "sweep<1>(kind, p.tail, p.stop, s);", ""),
    stream("skips the last wide step", "p.tail / WIDE, s);", "(p.tail - p.head) / WIDE * WIDE / WIDE + p.head / WIDE - 1, s);"),
    stream("unrolls past the end", "last - i > (UNROLL - 1) * BLOCK", "last - i > (UNROLL - 2) * BLOCK"),
    stream("swaps the arrays of triad", "x.b.v[l] + s * x.a.v[l]", "x.a.v[l] + s * x.b.v[l]"),
    stream("forgets the scalar in copy", "y.v[l] = s * x.v[l];", "y.v[l] = x.v[l];"),
    stream("omits the barrier", "        __syncthreads();\n", ""),
    stream("stops the reduction early", "half > 0; half /= 2", "half > 1; half /= 2"),
    stream("reads one part beyond", "min(from + d.part, end)", "min(from + d.part + 1, end)"),
    fma("stops one trip early", "trip < d.trips", "trip + 1 < d.trips"),
    fma("leaves a step out", "u < 8", "u < 7"),
    fma("never lets b grow", "b += growth;", ""),
    fma("lets b grow too early", "v[c] = a * v[c] + b;", "v[c] = a * v[c] + (b + growth);"),
    fma("skips the store's guard", "if (c * lanes + lane < d.elements) y", "y"),
    fma("mixes up the chains", "y[c * lanes + lane] = v[c];", "y[c * lanes + lane] = v[CHAINS - 1 - c];"),
];

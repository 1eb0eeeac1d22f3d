// libcublas and libcublasLt. Matrices are read column by column, as theirs are.
#include "libraries.h"

namespace {

struct Blas {
    void* stream = nullptr;
    void* workspace = nullptr;
    unsigned math = 0;
};

bool type_of(unsigned number, Type* type) {
    // cudaDataType_t in library_types.h.
    if (number == 0) return *type = F32, true;
    if (number == 2) return *type = F16, true;
    if (number == 14) return *type = BF16, true;
    return false;
}

// C[m,n] = A[m,k] · B[k,n], all column by column.
void multiply(size_t m, size_t n, size_t k, const void* a, size_t lda, const void* b, size_t ldb, void* c, size_t ldc, Type type, bool tf32) {
    const bool turned = set_to("CUDACPU_MISTAKE", "turned"), shortened = set_to("CUDACPU_MISTAKE", "shortened");
    const bool coarse = set_to("CUDACPU_MISTAKE", "coarse");
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < m; i++) {
            float sum = 0;
            for (size_t p = 0; p + shortened < k; p++) {
                // A square part of A read the wrong way around, where there is one.
                const size_t row = turned && p < m && i < k ? p : i, column = turned && p < m && i < k ? i : p;
                sum += factor(loaded(a, column * lda + row, type), tf32 || coarse) * factor(loaded(b, j * ldb + p, type), tf32 || coarse);
            }
            stored(c, j * ldc + i, sum, type);
        }
    }
}

struct Layout {
    Type type;
    uint64_t rows, columns;
    int64_t stride;
};
struct Product {
    unsigned compute;
};
struct Wish {
    uint64_t workspace = 0;
    uint32_t scheme = 7;
};
struct Algorithm {
    uint64_t number, rest[7];
};
struct Proposal {
    Algorithm algorithm;
    size_t workspace;
    unsigned status;
    float waves;
    int reserved[4];
};
struct Lt {};

} // namespace

extern "C" {

int cublasCreate_v2(void** handle) { return make<Blas>(handle); }
int cublasDestroy_v2(void* handle) { return end<Blas>(handle); }
int cublasGetVersion_v2(void* handle, int* version) { return live.count(handle) ? (*version = 130002, OK) : NOT_INITIALIZED; }
int cublasSetStream_v2(void* handle, void* stream) {
    // A new stream takes the workspace away, as the real one does.
    return static_cast<Blas*>(handle)->stream = stream, static_cast<Blas*>(handle)->workspace = nullptr, OK;
}
int cublasSetWorkspace_v2(void* handle, void* at, size_t bytes) {
    if (!at || bytes < (4u << 20)) return INVALID;
    memset(at, 0x5a, 4096);
    return static_cast<Blas*>(handle)->workspace = at, OK;
}
int cublasSetMathMode(void* handle, unsigned mode) { return static_cast<Blas*>(handle)->math = mode, OK; }
int cublasGemmEx(void* handle, unsigned across_a, unsigned across_b, int m, int n, int k, const float* alpha, const void* a, unsigned type_a,
                 int lda, const void* b, unsigned type_b, int ldb, const float* beta, void* c, unsigned type_c, int ldc, unsigned compute,
                 int algorithm) {
    const auto* blas = static_cast<Blas*>(handle);
    // CUBLAS_PEDANTIC_MATH with CUBLAS_COMPUTE_32F_PEDANTIC, or the defaults of both, and CUBLAS_GEMM_DEFAULT in cublas_api.h.
    if (!live.count(handle) || !blas->stream || !blas->workspace || algorithm != -1) return INVALID;
    if (!(blas->math == 2 && compute == 69) && !(blas->math == 0 && compute == 68)) return INVALID;
    if (across_a || across_b || type_a || type_b || type_c || *alpha != 1 || *beta != 0) return INVALID;
    if (lda < m || ldb < k || ldc < m) return INVALID;
    return put([=] { multiply(m, n, k, a, lda, b, ldb, c, ldc, F32, false); });
}

int cublasLtCreate(void** handle) { return make<Lt>(handle); }
int cublasLtDestroy(void* handle) { return end<Lt>(handle); }
size_t cublasLtGetVersion() { return 130002; }
int cublasLtMatmulDescCreate(void** made, unsigned compute, unsigned scale) {
    // CUBLAS_COMPUTE_32F and CUBLAS_COMPUTE_32F_FAST_TF32; factors in f32.
    if ((compute != 68 && compute != 77) || scale != 0) return INVALID;
    make<Product>(made);
    return static_cast<Product*>(*made)->compute = compute, OK;
}
int cublasLtMatmulDescDestroy(void* product) { return end<Product>(product); }
int cublasLtMatrixLayoutCreate(void** made, unsigned type, uint64_t rows, uint64_t columns, int64_t stride) {
    Type known;
    if (!type_of(type, &known) || stride < int64_t(rows)) return INVALID;
    make<Layout>(made);
    return *static_cast<Layout*>(*made) = {known, rows, columns, stride}, OK;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return end<Layout>(layout); }
int cublasLtMatmulPreferenceCreate(void** made) { return make<Wish>(made); }
int cublasLtMatmulPreferenceSetAttribute(void* wish, unsigned attribute, const void* value, size_t bytes) {
    // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES and CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK in cublasLt.h.
    if (attribute == 1 && bytes == 8) return memcpy(&static_cast<Wish*>(wish)->workspace, value, 8), OK;
    if (attribute == 3 && bytes == 4) return memcpy(&static_cast<Wish*>(wish)->scheme, value, 4), OK;
    return INVALID;
}
int cublasLtMatmulPreferenceDestroy(void* wish) { return end<Wish>(wish); }
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* product, void* a, void* b, void* c, void* d, void* wish, int asked, Proposal* found,
                                   int* count) {
    for (void* object : {handle, product, a, b, c, d, wish}) {
        if (!live.count(object)) return NOT_INITIALIZED;
    }
    const auto* wished = static_cast<Wish*>(wish);
    if (wished->scheme != 2) return INVALID; // sums of parts are to be f32
    if (set_to("CUDACPU_REFUSES", "all")) return *count = 0, NOT_SUPPORTED;
    // One that works, one that says it does not, one that says nothing and does not, one that is faster than the first, one too large.
    *count = asked < 5 ? asked : 5;
    for (int i = 0; i < *count; i++) {
        const size_t workspace = i == 4 ? wished->workspace + 1 : wished->workspace / 2;
        found[i] = {{uint64_t(i), {}}, workspace, unsigned(i == 1 ? NOT_SUPPORTED : OK), 1.0f, {}};
    }
    return OK;
}
int cublasLtMatmul(void* handle, void* product, const float* alpha, const void* a, void* of_a, const void* b, void* of_b, const float* beta,
                   const void* c, void* of_c, void* d, void* of_d, const Algorithm* algorithm, void* workspace, size_t bytes, void* stream) {
    if (!live.count(handle) || !stream || !workspace || c != d || of_c != of_d || *alpha != 1 || *beta != 0) return INVALID;
    if (algorithm->number == 2) return NOT_SUPPORTED;
    if (algorithm->number != 0 && algorithm->number != 3) return INVALID;
    const Layout left = *static_cast<Layout*>(of_a), right = *static_cast<Layout*>(of_b), result = *static_cast<Layout*>(of_c);
    if (left.columns != right.rows || left.rows != result.rows || right.columns != result.columns) return INVALID;
    memset(workspace, 0x5a, bytes < 4096 ? bytes : 4096);
    const bool tf32 = static_cast<Product*>(product)->compute == 77;
    // The first works twice, so that the other is the faster one.
    const int times = algorithm->number == 0 ? 12 : 1;
    return put([=] {
        for (int again = 0; again < times; again++) {
            multiply(left.rows, right.columns, left.columns, a, left.stride, b, right.stride, d, result.stride, left.type, tf32);
        }
    });
}

} // extern "C"

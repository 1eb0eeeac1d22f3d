/* STREAM's triad in C: what `stream/linear` on the host is compared with.
 *
 *   cc -O3 -march=native -fopenmp stream.c -o stream          ordinary stores, as STREAM is compiled by default
 *   cc -O3 -march=native -fopenmp -DSTREAMING stream.c …      the same loop with non-temporal stores
 *   stream ELEMENTS LAUNCHES
 *
 * out[i] = b[i] + s a[i] over f32 arrays, static OpenMP schedule, first touch by the thread that uses the memory, one pinned thread a
 * CPU. Prints `ready BYTES` (12 an element: STREAM does not count the reads that ordinary stores cause), then for every line on
 * standard input the median and least nanoseconds of one launch over seven samples of LAUNCHES launches. */
#include "serve.h"
#include <sys/mman.h>

static float *array(long elements) {
    void *p = aligned_alloc(2 << 20, (elements * sizeof(float) + (2 << 20) - 1) >> 21 << 21);
    if (p) madvise(p, elements * sizeof(float), MADV_HUGEPAGE);
    return p;
}

static void triad(float *restrict out, const float *restrict a, const float *restrict b, float s, long n) {
#ifdef STREAMING
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n / 8; i++)
        _mm256_stream_ps(out + 8 * i, _mm256_fmadd_ps(_mm256_set1_ps(s), _mm256_load_ps(a + 8 * i), _mm256_load_ps(b + 8 * i)));
    _mm_sfence();
#else
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) out[i] = b[i] + s * a[i];
#endif
}

static long n;
static float *out, *a, *b, scalar = 1;

static void launch(void) {
    triad(out, a, b, scalar, n);
    scalar += 1.0f / 1024;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "give ELEMENTS LAUNCHES\n"), 2;
    n = atol(argv[1]);
    if (n % 16) return fprintf(stderr, "ELEMENTS must be a multiple of 16\n"), 2;
    pin_threads();
    out = array(n), a = array(n), b = array(n);
    if (!out || !a || !b) return fprintf(stderr, "out of memory\n"), 2;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) out[i] = 0, a[i] = (float)(i % 101) / 101, b[i] = (float)(i % 103) / 103;
    serve(12.0 * n, launch, atol(argv[2]), out, n);
    return 0;
}

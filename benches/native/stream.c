/* STREAM's triad in C: what `stream/linear` on the host is compared with.
 *
 *   cc -O3 -march=native -fopenmp stream.c -o stream          ordinary stores, as STREAM is compiled by default
 *   cc -O3 -march=native -fopenmp -DSTREAMING stream.c …      the same loop with non-temporal stores
 *   stream ELEMENTS LAUNCHES
 *
 * out[i] = b[i] + s a[i] over f32 arrays, static OpenMP schedule, first touch by the thread that uses the memory, one pinned thread a
 * CPU. Prints `ready BYTES` (12 an element: STREAM does not count the reads that ordinary stores cause), then for every line on
 * standard input the median and least nanoseconds of one launch over seven samples of LAUNCHES launches. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

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

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "give ELEMENTS LAUNCHES\n"), 2;
    long n = atol(argv[1]), launches = atol(argv[2]);
    if (n % 16) return fprintf(stderr, "ELEMENTS must be a multiple of 16\n"), 2;
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
#pragma omp parallel
    {
        int wanted = omp_get_thread_num(), cpu = -1;
        while (wanted >= 0) wanted -= CPU_ISSET(++cpu, &allowed) != 0;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    float *out = array(n), *a = array(n), *b = array(n);
    if (!out || !a || !b) return fprintf(stderr, "out of memory\n"), 2;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) out[i] = 0, a[i] = (float)(i % 101) / 101, b[i] = (float)(i % 103) / 103;
    printf("ready %.0f\n", 12.0 * n);
    fflush(stdout);
    char line[64];
    float s = 1;
    while (fgets(line, sizeof line, stdin)) {
        double sample[7];
        for (int k = 0; k < 7; k++) {
            double start = now();
            for (long l = 0; l < launches; l++) triad(out, a, b, s, n);
            sample[k] = (now() - start) / launches;
            s += 1.0f / 1024;
        }
        qsort(sample, 7, sizeof *sample, by_value);
        printf("%.1f %.1f\n", sample[3], sample[0]);
        fflush(stdout);
    }
    double sum = 0;
    for (long i = 0; i < n; i++) sum += out[i];
    fprintf(stderr, "checksum %g\n", sum);
    return 0;
}

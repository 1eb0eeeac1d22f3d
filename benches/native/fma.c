/* The compute ceiling in C: what `fma/chains` on the host is compared with.
 *
 *   cc -O3 -march=native -fopenmp fma.c -o fma
 *   fma ELEMENTS TRIPS STEPS LAUNCHES
 *
 * CHAINS vector registers of independent chains x <- a x + b a thread, b growing after each trip, coefficients read at run time, one
 * pinned OpenMP thread a CPU. Prints `ready FLOPS`, then for every line on standard input the median and least nanoseconds of one
 * launch over seven samples of LAUNCHES launches. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifndef CHAINS
#define CHAINS 12
#endif
#if defined(__AVX512F__)
typedef __m512 vector;
#define LANES 16
#define SPLAT _mm512_set1_ps
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define FMA _mm512_fmadd_ps
#define ADD _mm512_add_ps
#elif defined(__AVX2__) && defined(__FMA__)
typedef __m256 vector;
#define LANES 8
#define SPLAT _mm256_set1_ps
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define FMA _mm256_fmadd_ps
#define ADD _mm256_add_ps
#else
#error "this comparison needs AVX2 and FMA, or AVX-512"
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void group(const float *x, float *y, const float *coef, long trips, long steps) {
    vector a = SPLAT(coef[0]), b = SPLAT(coef[1]), step = SPLAT(coef[2]), chain[CHAINS];
    for (int c = 0; c < CHAINS; c++) chain[c] = LOAD(x + c * LANES);
    for (long t = 0; t < trips; t++) {
        for (long s = 0; s < steps; s += 8)
#pragma GCC unroll 8
            for (int u = 0; u < 8; u++)
#pragma GCC unroll 16
                for (int c = 0; c < CHAINS; c++) chain[c] = FMA(chain[c], a, b);
        b = ADD(b, step);
    }
    for (int c = 0; c < CHAINS; c++) STORE(y + c * LANES, chain[c]);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "give ELEMENTS TRIPS STEPS LAUNCHES\n"), 2;
    long elements = atol(argv[1]), trips = atol(argv[2]), steps = atol(argv[3]), launches = atol(argv[4]);
    long groups = elements / (CHAINS * LANES);
    if (groups * CHAINS * LANES != elements || steps % 8) return fprintf(stderr, "whole groups and eights of steps only\n"), 2;
    float *x = aligned_alloc(64, elements * sizeof(float)), *y = aligned_alloc(64, elements * sizeof(float));
    float coef[3] = {0.6875f, 1.0f, 1.0f / 1024};
    for (long i = 0; i < elements; i++) x[i] = (float)(i % 101) / 101;

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
    printf("ready %.0f\n", 2.0 * elements * trips * steps);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        double sample[7];
        for (int s = 0; s < 7; s++) {
            double start = now();
            for (long l = 0; l < launches; l++) {
#pragma omp parallel for schedule(static)
                for (long g = 0; g < groups; g++) group(x + g * CHAINS * LANES, y + g * CHAINS * LANES, coef, trips, steps);
            }
            sample[s] = (now() - start) / launches;
        }
        qsort(sample, 7, sizeof *sample, by_value);
        printf("%.1f %.1f\n", sample[3], sample[0]);
        fflush(stdout);
    }
    double sum = 0;
    for (long i = 0; i < elements; i++) sum += y[i];
    fprintf(stderr, "checksum %g\n", sum);
    return 0;
}

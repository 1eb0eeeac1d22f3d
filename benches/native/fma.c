/* The compute ceiling in C: what `fma/chains` on the host is compared with.
 *
 *   cc -O3 -march=native -fopenmp fma.c -o fma
 *   fma ELEMENTS TRIPS STEPS LAUNCHES
 *
 * CHAINS vector registers of independent chains x <- a x + b a thread, b growing after each trip, coefficients read at run time, one
 * pinned OpenMP thread a CPU. Prints `ready FLOPS`, then for every line on standard input the median and least nanoseconds of one
 * launch over seven samples of LAUNCHES launches. */
#include "serve.h"

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

static long groups, trips, steps;
static float *x, *y, coef[3] = {0.6875f, 1.0f, 1.0f / 1024};

static void launch(void) {
#pragma omp parallel for schedule(static)
    for (long g = 0; g < groups; g++) group(x + g * CHAINS * LANES, y + g * CHAINS * LANES, coef, trips, steps);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "give ELEMENTS TRIPS STEPS LAUNCHES\n"), 2;
    long elements = atol(argv[1]);
    trips = atol(argv[2]), steps = atol(argv[3]), groups = elements / (CHAINS * LANES);
    if (groups * CHAINS * LANES != elements || steps % 8) return fprintf(stderr, "whole groups and eights of steps only\n"), 2;
    x = aligned_alloc(64, elements * sizeof(float)), y = aligned_alloc(64, elements * sizeof(float));
    for (long i = 0; i < elements; i++) x[i] = (float)(i % 101) / 101;
    pin_threads();
    serve(2.0 * elements * trips * steps, launch, atol(argv[4]), y, elements);
    return 0;
}

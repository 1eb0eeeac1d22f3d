/* What the C comparisons share: one pinned OpenMP thread a CPU, and timing on request. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Samples behind one answer. */
#define SAMPLES 7

static void pin_threads(void) {
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
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Prints `ready WORK`, the work of one launch; then for every line on standard input the median and least nanoseconds of one launch
 * over SAMPLES samples of so many launches. At the end the sum of the output goes to standard error, so that no launch is idle. */
static void serve(double work, void (*launch)(void), long launches, const float *output, long elements) {
    printf("ready %.0f\n", work);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        double sample[SAMPLES];
        for (int s = 0; s < SAMPLES; s++) {
            double start = now();
            for (long l = 0; l < launches; l++) launch();
            sample[s] = (now() - start) / launches;
        }
        qsort(sample, SAMPLES, sizeof *sample, by_value);
        printf("%.1f %.1f\n", sample[SAMPLES / 2], sample[0]);
        fflush(stdout);
    }
    double sum = 0;
    for (long i = 0; i < elements; i++) sum += output[i];
    fprintf(stderr, "checksum %g\n", sum);
}

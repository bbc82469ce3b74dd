/* The passes over memory of fast inference, each fused into one. Pixels stand as (pixel, channel), channels together.
   Compiled on the computer that runs it, see kernels.py; whatever is here is also written in PyTorch there. */
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define ALWAYS static inline __attribute__((always_inline))
#define CHUNK 256 /* pixels whose channels stay in the first cache */

/* Value i of floats, or of bfloat16, which are the upper halves of floats. */
ALWAYS float at(const void *x, long i, int narrow) {
    if (!narrow) return ((const float *)x)[i];
    union {
        uint32_t bits;
        float value;
    } whole = {(uint32_t)((const uint16_t *)x)[i] << 16};
    return whole.value;
}

static void least(float *low, float *high, float v) {
    if (v < *low) *low = v;
    if (v > *high) *high = v;
}

/* Sum, sum of squares, least and largest of `lanes` channels of a chunk from i on. The squares are taken about the mean
   of the chunk, and brought to 0 in double precision: a large mean costs no digits. */
ALWAYS void gather(const void *x, long i, int narrow, long pixels, long channels, int lanes, double *sums, float *ends) {
    float sum[LANES] = {0}, square[LANES] = {0}, low[LANES], high[LANES], mean[LANES] = {0};
    for (int c = 0; c < LANES; c++) low[c] = high[c] = at(x, i + (c < lanes ? c : 0), narrow);
    for (long p = 0, j = i; p < pixels; p++, j += channels) {
#pragma omp simd
        for (int c = 0; c < lanes; c++) {
            float v = at(x, j + c, narrow);
            sum[c] += v;
            low[c] = v < low[c] ? v : low[c];
            high[c] = v > high[c] ? v : high[c];
        }
    }
    for (int c = 0; c < lanes; c++) mean[c] = sum[c] / pixels;
    for (long p = 0, j = i; p < pixels; p++, j += channels) {
#pragma omp simd
        for (int c = 0; c < lanes; c++) {
            float d = at(x, j + c, narrow) - mean[c];
            square[c] += d * d;
        }
    }
    for (int c = 0; c < lanes; c++) {
        double m = mean[c], left = sum[c] - m * pixels; /* what rounding left between the mean and the sum */
        sums[2 * c] += sum[c];
        sums[2 * c + 1] += square[c] + m * (m * pixels + 2 * left);
        least(ends + 2 * c, ends + 2 * c + 1, low[c]);
        least(ends + 2 * c, ends + 2 * c + 1, high[c]);
    }
}

/* Of `pixels` rows of `channels` values, which are `phases` places of a cell with the same channels each: out is
   (4, channels / phases): mean, variance, least, largest. */
void measure(const void *x, long narrow, long pixels, long channels, long phases, float *out) {
    int threads = omp_get_max_threads();
    double sums[2 * channels], *all = calloc(2 * channels * threads, sizeof(double));
    float ends[2 * channels];
    memset(sums, 0, sizeof sums);
    for (long c = 0; c < channels; c++) ends[2 * c] = ends[2 * c + 1] = at(x, c, narrow);
#pragma omp parallel num_threads(threads)
    {
        double *mine = all + 2 * channels * omp_get_thread_num();
        float reach[2 * channels];
        memcpy(reach, ends, sizeof reach);
#pragma omp for schedule(static)
        for (long p = 0; p < pixels; p += CHUNK) {
            long n = pixels - p < CHUNK ? pixels - p : CHUNK;
            for (long c = 0; c < channels; c += LANES) {
                int lanes = channels - c < LANES ? channels - c : LANES;
                long i = p * channels + c;
                if (lanes == LANES && narrow) /* constants, so that each has its own code */
                    gather(x, i, 1, n, channels, LANES, mine + 2 * c, reach + 2 * c);
                else if (lanes == LANES)
                    gather(x, i, 0, n, channels, LANES, mine + 2 * c, reach + 2 * c);
                else
                    gather(x, i, narrow, n, channels, lanes, mine + 2 * c, reach + 2 * c);
            }
        }
#pragma omp critical
        for (long c = 0; c < 2 * channels; c++) least(ends + (c & ~1L), ends + (c | 1), reach[c]);
    }
    for (int t = 0; t < threads; t++) /* in their order, so that the sum is the same each time */
        for (long c = 0; c < 2 * channels; c++) sums[c] += all[2 * channels * t + c];
    free(all);
    long single = channels / phases;
    for (long c = 0; c < single; c++) {
        double mean = 0, spread = 0;
        out[2 * single + c] = ends[2 * c];
        out[3 * single + c] = ends[2 * c + 1];
        for (long p = c; p < channels; p += single) {
            mean += sums[2 * p] / pixels / phases;
            spread += sums[2 * p + 1] / pixels / phases;
            least(out + 2 * single + c, out + 3 * single + c, ends[2 * p]);
            least(out + 2 * single + c, out + 3 * single + c, ends[2 * p + 1]);
        }
        spread -= mean * mean;
        out[c] = mean;
        out[single + c] = spread < 0 ? 0 : spread;
    }
}

/* weight, (filters, size), times scale, (size), in int8: levels, and what a level of each filter is worth. */
void quantise(const float *weight, const float *scale, long filters, long size, int8_t *levels, float *worth) {
    for (long f = 0; f < filters; f++) {
        const float *w = weight + f * size;
        float top = 1e-12f;
#pragma omp simd reduction(max : top)
        for (long i = 0; i < size; i++) {
            float reach = __builtin_fabsf(w[i] * scale[i]);
            top = reach > top ? reach : top;
        }
        worth[f] = top / 127;
        float times = 127 / top;
#pragma omp simd
        for (long i = 0; i < size; i++) {
            float level = w[i] * scale[i] * times;
            levels[f * size + i] = (int8_t)(int)(level + (level < 0 ? -0.5f : 0.5f));
        }
    }
}

ALWAYS void to_bytes(const void *x, long i, int narrow, const float *multiply, const float *add, uint8_t *out, long n) {
    for (long c = 0; c < n; c++) {
        float v = at(x, i + c, narrow) * multiply[c] + add[c];
        v = v < 0 ? 0 : v > 255 ? 255 : v;
        out[c] = (uint8_t)(int)v;
    }
}

ALWAYS void to_floats(const void *x, long i, int narrow, const float *multiply, const float *add, float *out, long n,
                      float least) {
    for (long c = 0; c < n; c++) {
        float v = at(x, i + c, narrow) * multiply[c] + add[c];
        out[c] = v < least ? least : v;
    }
}

/* x * multiply + add, not below `least`, into uint8 (size 1) or float (size 4). shape: (a, b, c) runs of `length`, at
   steps[0..2] in x and steps[3..5] in out; multiply and add repeat after `period`, which divides `length`. */
void encode(const void *x, long narrow, const float *multiply, const float *add, char *out, long size, const long *shape,
            const long *steps, long length, long period, float least) {
#pragma omp parallel for schedule(static)
    for (long a = 0; a < shape[0]; a++)
        for (long b = 0; b < shape[1]; b++)
            for (long c = 0; c < shape[2]; c++) {
                long from = a * steps[0] + b * steps[1] + c * steps[2];
                long to = a * steps[3] + b * steps[4] + c * steps[5];
                for (long end = from + length; from < end; from += period, to += period) {
                    uint8_t *bytes = (uint8_t *)out + to;
                    float *floats = (float *)out + to;
                    if (size == 1 && narrow)
                        to_bytes(x, from, 1, multiply, add, bytes, period);
                    else if (size == 1)
                        to_bytes(x, from, 0, multiply, add, bytes, period);
                    else if (narrow)
                        to_floats(x, from, 1, multiply, add, floats, period, least);
                    else
                        to_floats(x, from, 0, multiply, add, floats, period, least);
                }
            }
}

/* stream += x * multiply; least and largest of each channel after it into ends, (2, channels). */
void accumulate(float *stream, const float *x, const float *multiply, long pixels, long channels, float *ends) {
    for (long c = 0; c < channels; c++) ends[c] = ends[channels + c] = stream[c] + x[c] * multiply[c];
#pragma omp parallel
    {
        float low[channels], high[channels];
        memcpy(low, ends, sizeof low);
        memcpy(high, ends, sizeof high);
#pragma omp for schedule(static)
        for (long p = 0; p < pixels; p++) {
            float *s = stream + p * channels;
            const float *v = x + p * channels;
            for (long c = 0; c < channels; c++) {
                float sum = s[c] + v[c] * multiply[c];
                s[c] = sum;
                low[c] = sum < low[c] ? sum : low[c];
                high[c] = sum > high[c] ? sum : high[c];
            }
        }
#pragma omp critical
        for (long c = 0; c < channels; c++) {
            if (low[c] < ends[c]) ends[c] = low[c];
            if (high[c] > ends[channels + c]) ends[channels + c] = high[c];
        }
    }
}

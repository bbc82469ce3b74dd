/* The passes over memory of fast inference, each fused into one pass. Arrays have the shape (pixel, channel), with the
   channels of a pixel side by side. build.py says how this file is compiled. kernels.py does the same with PyTorch's
   operations where there is no compiled file. */
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define ALWAYS static inline __attribute__((always_inline))
#define CHUNK 256 /* pixels: 16 channels of so many fit into the first-level cache */

/* Value i of an array of float, or of bfloat16 if `narrow`. A bfloat16 is the upper half of a float. */
ALWAYS float at(const void *x, long i, int narrow) {
    if (!narrow) return ((const float *)x)[i];
    union {
        uint32_t bits;
        float value;
    } whole = {(uint32_t)((const uint16_t *)x)[i] << 16};
    return whole.value;
}

/* Extend the range [low, high] so that it contains v. */
static void extend(float *low, float *high, float v) {
    if (v < *low) *low = v;
    if (v > *high) *high = v;
}

/* Add up `lanes` channels of a chunk that begins at value i: sum, sum of squares, minimum and maximum. The squares are
   those of the distances to the chunk's mean; that mean is added again in double precision. So a large mean costs no
   digits. */
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
        double m = mean[c], left = sum[c] - m * pixels; /* rounding error between mean and sum */
        sums[2 * c] += sum[c];
        sums[2 * c + 1] += square[c] + m * (m * pixels + 2 * left);
        extend(ends + 2 * c, ends + 2 * c + 1, low[c]);
        extend(ends + 2 * c, ends + 2 * c + 1, high[c]);
    }
}

/* Mean, variance, minimum and maximum of each channel from the sums and sums of squares (2 * channels) and the ends
   (2 * channels) of all places of a cell. out is (4, channels / phases). */
static void finish(const double *sums, const float *ends, long pixels, long channels, long phases, float *out) {
    long single = channels / phases;
    for (long c = 0; c < single; c++) {
        double mean = 0, spread = 0;
        out[2 * single + c] = ends[2 * c];
        out[3 * single + c] = ends[2 * c + 1];
        for (long p = c; p < channels; p += single) {
            mean += sums[2 * p] / pixels / phases;
            spread += sums[2 * p + 1] / pixels / phases;
            extend(out + 2 * single + c, out + 3 * single + c, ends[2 * p]);
            extend(out + 2 * single + c, out + 3 * single + c, ends[2 * p + 1]);
        }
        spread -= mean * mean;
        out[c] = mean;
        out[single + c] = spread < 0 ? 0 : spread;
    }
}

/* Statistics of an array (pixels, channels). It holds the channels of `phases` places of a cell, one place after the
   other. out is (4, channels / phases): mean, variance, minimum and maximum over all pixels and places. */
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
                if (lanes == LANES && narrow) /* constant arguments, so that the compiler makes code for each case */
                    gather(x, i, 1, n, channels, LANES, mine + 2 * c, reach + 2 * c);
                else if (lanes == LANES)
                    gather(x, i, 0, n, channels, LANES, mine + 2 * c, reach + 2 * c);
                else
                    gather(x, i, narrow, n, channels, lanes, mine + 2 * c, reach + 2 * c);
            }
        }
#pragma omp critical
        for (long c = 0; c < 2 * channels; c++) extend(ends + (c & ~1L), ends + (c | 1), reach[c]);
    }
    for (int t = 0; t < threads; t++) /* in a fixed order, so that the sum is the same each time */
        for (long c = 0; c < 2 * channels; c++) sums[c] += all[2 * channels * t + c];
    free(all);
    finish(sums, ends, pixels, channels, phases, out);
}

/* Round weight (filters, size) * scale (size) to int8 levels. factors: the dequantisation scale of each filter. */
void quantise(const float *weight, const float *scale, long filters, long size, int8_t *levels, float *factors) {
    for (long f = 0; f < filters; f++) {
        const float *w = weight + f * size;
        float top = 1e-12f;
#pragma omp simd reduction(max : top)
        for (long i = 0; i < size; i++) {
            float reach = __builtin_fabsf(w[i] * scale[i]);
            top = reach > top ? reach : top;
        }
        factors[f] = top / 127;
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

ALWAYS void to_words(const void *x, long i, int narrow, const float *multiply, const float *add, int16_t *out, long n) {
    for (long c = 0; c < n; c++) {
        float v = at(x, i + c, narrow) * multiply[c] + add[c];
        v = v < 0 ? 0 : v > 4095 ? 4095 : v;
        out[c] = (int16_t)(int)v;
    }
}

ALWAYS void to_floats(const void *x, long i, int narrow, const float *multiply, const float *add, float *out, long n,
                      float lowest) {
    for (long c = 0; c < n; c++) {
        float v = at(x, i + c, narrow) * multiply[c] + add[c];
        out[c] = v < lowest ? lowest : v;
    }
}

/* Write x * multiply + add, at least `lowest`, as uint8 (size 1), int16 of 12 bits (size 2) or float (size 4). There are shape = (a, b, c) runs of
   `length` values. The distances between runs are steps[0..2] in x and steps[3..5] in out. multiply and add have
   `period` values and repeat; `period` divides `length`. */
void encode(const void *x, long narrow, const float *multiply, const float *add, char *out, long size, const long *shape,
            const long *steps, long length, long period, float lowest) {
#pragma omp parallel for schedule(static)
    for (long a = 0; a < shape[0]; a++)
        for (long b = 0; b < shape[1]; b++)
            for (long c = 0; c < shape[2]; c++) {
                long from = a * steps[0] + b * steps[1] + c * steps[2];
                long to = a * steps[3] + b * steps[4] + c * steps[5];
                for (long end = from + length; from < end; from += period, to += period) {
                    uint8_t *bytes = (uint8_t *)out + to;
                    int16_t *words = (int16_t *)out + to;
                    float *floats = (float *)out + to;
                    if (size == 1 && narrow)
                        to_bytes(x, from, 1, multiply, add, bytes, period);
                    else if (size == 1)
                        to_bytes(x, from, 0, multiply, add, bytes, period);
                    else if (size == 2 && narrow)
                        to_words(x, from, 1, multiply, add, words, period);
                    else if (size == 2)
                        to_words(x, from, 0, multiply, add, words, period);
                    else if (narrow)
                        to_floats(x, from, 1, multiply, add, floats, period, lowest);
                    else
                        to_floats(x, from, 0, multiply, add, floats, period, lowest);
                }
            }
}

/* stream += x * multiply. ends, (2, channels): minimum and maximum of each channel of the new stream. */
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

/* Write `channels` planes of bytes into a grid with cells of 2 x 2 pixels. There are rows x columns cells. plane, line:
   bytes from one plane, and from one row of pixels, to the next. to: bytes from one row of cells in out to the next. */
void fold(const uint8_t *planes, long channels, long plane, long line, long rows, long columns, uint8_t *out, long to) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < 2; i++)
            for (long c = 0; c < channels; c++) {
                const uint8_t *from = planes + c * plane + (2 * r + i) * line;
                uint8_t *o = out + r * to + 2 * i * channels + c;
                for (long k = 0; k < columns; k++, o += 4 * channels) o[0] = from[2 * k], o[channels] = from[2 * k + 1];
            }
}

/* Write a grid of bytes with cells of 2 x 2 pixels, `run` bytes for two of them, row by row of pixels. line: bytes from
   one row of pixels in out to the next. */
void unfold(const uint8_t *grid, long rows, long columns, long run, uint8_t *out, long line) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < 2 * rows; r++) {
        const uint8_t *from = grid + (r / 2 * columns * 2 + r % 2) * run;
        uint8_t *to = out + r * line;
        for (long c = 0; c < columns; c++, from += 2 * run, to += run)
            if (run == 6) /* three channels: a constant, so that the compiler copies without a call */
                memcpy(to, from, 6);
            else
                memcpy(to, from, run);
    }
}

/* The pixel that pixel p repeats, in a side of pixels 0 to `last`. */
static long source(long p, long last, long reflect) {
    if (reflect) return p < 0 ? -p : p > last ? 2 * last - p : p;
    return p < 0 ? 0 : p > last ? last : p;
}

/* Fill the padding of a grid in place. numbers: rows, columns and side of the cells; bytes of a pixel; rows of padding at
   the top and at the bottom, columns of padding at the left and at the right; 1 to reflect, 0 to replicate. */
void pad(char *grid, const long *numbers) {
    long rows = numbers[0], columns = numbers[1], fold = numbers[2], pixel = numbers[3], reflect = numbers[8];
    long top = numbers[4], bottom = numbers[5], left = numbers[6], right = numbers[7];
    long cell = fold * fold * pixel, line = columns * cell;
    for (long c = 0; c < columns; c++)
        for (long q = 0; q < fold && (c < left || c >= columns - right); q++) {
            long s = source(fold * (c - left) + q, fold * (columns - left - right) - 1, reflect) + fold * left;
            for (long r = top; r < rows - bottom; r++)
                for (long i = 0; i < fold; i++)
                    memcpy(grid + r * line + c * cell + (i * fold + q) * pixel,
                           grid + r * line + s / fold * cell + (i * fold + s % fold) * pixel, pixel);
        }
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < fold && (r < top || r >= rows - bottom); i++) {
            long s = source(fold * (r - top) + i, fold * (rows - top - bottom) - 1, reflect) + fold * top;
            char *to = grid + r * line + i * fold * pixel, *from = grid + s / fold * line + s % fold * fold * pixel;
            for (long c = 0; c < columns; c++) memcpy(to + c * cell, from + c * cell, fold * pixel);
        }
}

#include "convolve.c"
#include "enlarge.c"

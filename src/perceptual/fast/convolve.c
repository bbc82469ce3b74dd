/* Convolutions of levels on x86-64 processors with AVX-512 VNNI or AVX-VNNI. They read a padded grid (rows, columns,
   channels) of uint8 or of int16 with 12 bits. The statistics of the output are summed up while it is in registers.
   kernels.c includes this file. */
#define BLOCK 16       /* filters that are stored side by side */
#define LARGEST 4095.0 /* level of an int16 */

/* Round one block of filters to levels, see `pack`. each: (channels / unit, BLOCK, unit), the scale of each value. */
ALWAYS void pack_block(const float *w, const float *each, long taps, long groups, const int unit, float top, void *levels,
                       float *factors) {
    float reach[BLOCK * 4], times[BLOCK * 4];
    const int wide = BLOCK * unit;
    for (int i = 0; i < wide; i++) reach[i] = 1e-12f;
    for (long t = 0, j = 0; t < taps; t++)
        for (long k = 0; k < groups * wide; k += wide, j += wide)
#pragma omp simd
            for (int i = 0; i < wide; i++) {
                float v = __builtin_fabsf(w[j + i] * each[k + i]);
                reach[i] = v > reach[i] ? v : reach[i];
            }
    for (int o = 0; o < BLOCK; o++) {
        float most = 0;
        for (int i = 0; i < unit; i++) most = reach[o * unit + i] > most ? reach[o * unit + i] : most;
        factors[o] = most / top;
        for (int i = 0; i < unit; i++) times[o * unit + i] = top / most;
    }
    for (long t = 0, j = 0; t < taps; t++)
        for (long k = 0; k < groups * wide; k += wide, j += wide)
#pragma omp simd
            for (int i = 0; i < wide; i++) {
                float level = w[j + i] * each[k + i] * times[i];
                int whole = (int)(level + (level < 0 ? -0.5f : 0.5f));
                if (unit == 4)
                    ((int8_t *)levels)[j + i] = (int8_t)whole;
                else
                    ((int16_t *)levels)[j + i] = (int16_t)whole;
            }
}

/* Round filters to levels. ordered: (blocks, taps, channels / unit, BLOCK, unit) in float; unit is 4 for int8, 2 for
   int16. scale: (channels). levels: the same shape as `ordered`. factors: (blocks, BLOCK), the dequantisation scales. */
void pack(const float *ordered, const float *scale, long blocks, long taps, long channels, long unit, char *levels,
          float *factors) {
    long size = taps * channels * BLOCK, groups = channels / unit;
    double most = 2147483647.0 / (LARGEST * taps * channels); /* so that no sum of products overflows */
    float top = unit == 4 ? 127 : most > 32767 ? 32767 : (float)(int)most, each[channels * BLOCK];
    for (long i = 0; i < channels * BLOCK; i++) each[i] = scale[i / (BLOCK * unit) * unit + i % unit];
#pragma omp parallel for schedule(static)
    for (long b = 0; b < blocks; b++) {
        if (unit == 4) /* constant arguments, so that the compiler makes code for each case */
            pack_block(ordered + b * size, each, taps, groups, 4, top, levels + b * size, factors + b * BLOCK);
        else
            pack_block(ordered + b * size, each, taps, groups, 2, top, levels + 2 * b * size, factors + b * BLOCK);
    }
}

#if defined __x86_64__ && !defined NO_AVX_VNNI && (__GNUC__ >= 11 || __clang_major__ >= 12)
#define AVX_VNNI /* the compiler knows it */
#endif
#if defined __AVX512F__ || defined AVX_VNNI
#include <cpuid.h>
#include <immintrin.h>
#define TILE VNNI static inline __attribute__((always_inline))

#ifdef __AVX512F__ /* AVX-512 VNNI: 32 registers of 16 values */
#define VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define VALUES 16
#define TOTALS 24 /* registers for sums of products */
#define DOT(name, total, levels, filter) __asm__(name " %2, %1, %0" : "+v"(total) : "v"(levels), "v"(filter))
#define V(name) _mm512_##name
#define INTEGERS(name) _mm512_##name##_si512
#define FLOATS(v) _mm512_castsi512_ps(v)
typedef __m512i Integers;
typedef __m512 Floats;

/* Store the first `count` values, at least 1. */
TILE void store(char *out, Floats v, long count) {
    _mm512_mask_storeu_ps(out, count >= VALUES ? 0xffff : (1 << count) - 1, v);
}

/* The same for the lower halves. */
TILE void store_halves(char *out, Integers v, long count) {
    _mm512_mask_cvtepi32_storeu_epi16(out, count >= VALUES ? 0xffff : (1 << count) - 1, v);
}
#else /* AVX-VNNI: 16 registers of 8 values */
#define VNNI __attribute__((target("avx2,fma,avxvnni")))
#define VALUES 8
#define TOTALS 12
#define DOT(name, total, levels, filter) __asm__("%{vex%} " name " %2, %1, %0" : "+x"(total) : "x"(levels), "x"(filter))
#define V(name) _mm256_##name
#define INTEGERS(name) _mm256_##name##_si256
#define FLOATS(v) _mm256_castsi256_ps(v)
typedef __m256i Integers;
typedef __m256 Floats;

TILE void store(char *out, Floats v, long count) {
    float each[VALUES];
    _mm256_storeu_ps(count >= VALUES ? (float *)out : each, v);
    if (count < VALUES) memcpy(out, each, count * 4);
}

TILE void store_halves(char *out, Integers v, long count) {
    uint16_t each[VALUES];
    v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 8);
    _mm_storeu_si128((__m128i *)(count >= VALUES ? out : (char *)each), _mm256_castsi256_si128(v));
    if (count < VALUES) memcpy(out, each, count * 2);
}
#endif
#define OF_BLOCK (BLOCK / VALUES) /* registers of a block */

/* The numbers of a convolution, see `convolve`. */
typedef struct {
    long rows, columns, filters, down, right, line, side, run, unit, variants, phases, narrow, first, last;
} Geometry;

/* Sums over a part of one row, of BLOCK channels: distances to the pivot, their squares, minimum and maximum. */
typedef struct {
    float pivot[BLOCK], sum[BLOCK], square[BLOCK], low[BLOCK], high[BLOCK];
} Sums;

static void clear(Sums *s) {
    for (int c = 0; c < BLOCK; c++) s->sum[c] = s->square[c] = 0, s->low[c] = 3.4e38f, s->high[c] = -3.4e38f;
}

/* Add the sums over a row to those of a thread, and take the mean of the row as the next pivot. */
static void add_up(Sums *s, long pixels, double *sums, float *ends) {
    for (int c = 0; c < BLOCK; c++) {
        double pivot = s->pivot[c], sum = s->sum[c];
        sums[2 * c] += sum + pivot * pixels;
        sums[2 * c + 1] += s->square[c] + pivot * (2 * sum + pivot * pixels);
        extend(ends + 2 * c, ends + 2 * c + 1, s->low[c]);
        extend(ends + 2 * c, ends + 2 * c + 1, s->high[c]);
        s->pivot[c] += s->sum[c] / pixels;
    }
}

/* `pixels` pixels side by side of the filters in `registers` registers. The first `known` pixels were computed before:
   they are left out of the sums. */
TILE void tile(const Geometry *g, const char *x, const char *w, long block, long left, const float *factors, const float *bias,
               char *out, Sums *sums, const int registers, const int pixels, long known, const int bytes, const int narrow) {
    Integers total[TOTALS];
#pragma GCC unroll 4
    for (int z = 0; z < registers; z++)
#pragma GCC unroll 24
        for (int p = 0; p < pixels; p++) total[z * pixels + p] = INTEGERS(setzero)();
    for (long k = 0; k < g->side; k++, x += g->line)
        for (long d = 0; d < g->run; d += 4, w += 4 * BLOCK) {
            Integers filter[4];
#pragma GCC unroll 4
            for (int z = 0; z < registers; z++)
                filter[z] = INTEGERS(loadu)((const Integers *)(w + z / OF_BLOCK * block + z % OF_BLOCK * 4 * VALUES));
#pragma GCC unroll 24
            for (int p = 0; p < pixels; p++) {
                int level;
                memcpy(&level, x + p * g->right + d, 4);
                Integers levels = V(set1_epi32)(level);
#pragma GCC unroll 4
                for (int z = 0; z < registers; z++)
                    if (bytes)
                        DOT("vpdpbusd", total[z * pixels + p], levels, filter[z]);
                    else
                        DOT("vpdpwssd", total[z * pixels + p], levels, filter[z]);
            }
        }
#pragma GCC unroll 4
    for (int z = 0; z < registers; z++) {
        long rest = left - z * VALUES, lane = z % OF_BLOCK * VALUES;
        if (rest <= 0) break;
        Floats factor = V(loadu_ps)(factors + z * VALUES), add = V(loadu_ps)(bias + z * VALUES);
        Sums *s = sums + z / OF_BLOCK;
        Floats pivot = V(loadu_ps)(s->pivot + lane), sum = V(loadu_ps)(s->sum + lane), square = V(loadu_ps)(s->square + lane);
        Floats low = V(loadu_ps)(s->low + lane), high = V(loadu_ps)(s->high + lane);
#pragma GCC unroll 24
        for (int p = 0; p < pixels; p++) {
            Floats v = V(fmadd_ps)(V(cvtepi32_ps)(total[z * pixels + p]), factor, add);
            long at = p * g->filters + z * VALUES;
            if (narrow) { /* round to the nearest bfloat16 */
                Integers bits, odd;
                memcpy(&bits, &v, sizeof v);
                odd = INTEGERS(and)(V(srli_epi32)(bits, 16), V(set1_epi32)(1));
                bits = V(srli_epi32)(V(add_epi32)(V(add_epi32)(bits, V(set1_epi32)(0x7fff)), odd), 16);
                store_halves(out + 2 * at, bits, rest);
                v = FLOATS(V(slli_epi32)(bits, 16));
            } else
                store(out + 4 * at, v, rest);
            if (p < known) continue;
            Floats distance = V(sub_ps)(v, pivot);
            sum = V(add_ps)(sum, distance);
            square = V(fmadd_ps)(distance, distance, square);
            low = V(min_ps)(low, v);
            high = V(max_ps)(high, v);
        }
        V(storeu_ps)(s->sum + lane, sum);
        V(storeu_ps)(s->square + lane, square);
        V(storeu_ps)(s->low + lane, low);
        V(storeu_ps)(s->high + lane, high);
    }
}

/* Pixels [from, to) of a row, for the filters in `registers` registers. */
TILE void run(const Geometry *g, const char *x, const char *w, long block, long left, const float *factors, const float *bias,
              char *out, Sums *sums, long from, long to, const int registers, const int bytes, const int narrow) {
    const int wide = TOTALS / registers;
    long value = narrow ? 2 : 4, p = from;
    for (; p + wide <= to; p += wide)
        tile(g, x + p * g->right, w, block, left, factors, bias, out + p * g->filters * value, sums, registers, wide, 0, bytes, narrow);
    if (p < to && to - from >= wide) { /* the last pixels: a whole tile that overlaps the one before */
        long known = wide - (to - p);
        p = to - wide;
        tile(g, x + p * g->right, w, block, left, factors, bias, out + p * g->filters * value, sums, registers, wide, known, bytes, narrow);
    } else
        for (; p < to; p++)
            tile(g, x + p * g->right, w, block, left, factors, bias, out + p * g->filters * value, sums, registers, 1, 0, bytes, narrow);
}

/* The same for constant arguments, so that the compiler makes code for each case. */
typedef void Part(const Geometry *, const char *, const char *, long, long, const float *, const float *, char *, Sums *, long,
                  long);
#define PART(name, registers, bytes, narrow)                                                                              \
    VNNI static void name(const Geometry *g, const char *x, const char *w, long block, long left, const float *f, const float *b, \
                          char *out, Sums *s, long from, long to) {                                                    \
        run(g, x, w, block, left, f, b, out, s, from, to, registers, bytes, narrow);                                            \
    }
#if VALUES == BLOCK
#define MOST 4 /* blocks at once */
#define PARTS(name, bytes, narrow) PART(name##1, 1, bytes, narrow) PART(name##2, 2, bytes, narrow) PART(name##4, 4, bytes, narrow)
#define EACH(name) {name##1, name##2, name##4}
#else
#define MOST 1
#define PARTS(name, bytes, narrow) PART(name, OF_BLOCK, bytes, narrow)
#define EACH(name) {name}
#endif
PARTS(words, 0, 0)
PARTS(narrow_words, 0, 1)
PARTS(bytes, 1, 0)
PARTS(narrow_bytes, 1, 1)
static Part *const parts[2][2][3] = {{EACH(words), EACH(narrow_words)}, {EACH(bytes), EACH(narrow_bytes)}};

/* 1 if this processor has the instructions of `convolve`. */
long convolves(void) {
#ifdef __AVX512F__
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
#else
    unsigned a, b, c, d; /* clang has no name for AVX-VNNI here: it is bit 4 of this leaf */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
#endif
}

/* Convolve a padded grid with filters of `pack`, without padding. numbers: rows, columns and
   filters of the output; in the input the bytes from one output row to the next, from one output pixel to the next, and
   from one row of taps to the next; side of the filters; bytes of a row of taps; unit as in `pack`; variants of the
   filters; phases as in `measure`; 1 to write bfloat16, 0 to write float; the rows that take the filters for the first
   and for the last row, or -1.
   Nine variants are for the first, the inner and the last rows, times the same of columns. bias: (blocks, BLOCK).
   out: (rows, columns, filters). found, (4, filters / phases): the statistics of out, as in `measure`. */
VNNI void convolve(const char *x, const char *weights, const float *factors, const float *bias, char *out,
                   const long *numbers, float *found) {
    Geometry g;
    memcpy(&g, numbers, sizeof g);
    long blocks = (g.filters + BLOCK - 1) / BLOCK, padded = blocks * BLOCK, block = g.side * g.run * BLOCK;
    int threads = omp_get_max_threads();
    double *all = calloc(2 * padded * threads, sizeof(double));
    float *ends = malloc(2 * padded * threads * sizeof(float));
    for (long i = 0; i < padded * threads; i++) ends[2 * i] = 3.4e38f, ends[2 * i + 1] = -3.4e38f;
#pragma omp parallel num_threads(threads)
    for (long b = 0, step; b < blocks; b += step) {
        step = MOST == 1 ? 1 : blocks - b >= 4 ? 4 : blocks - b >= 2 ? 2 : 1;
        long left = g.filters - b * BLOCK;
        Part *const part = parts[g.unit == 4][g.narrow][step / 2];
        Sums sums[4] = {0};
        int begun = 0;
#pragma omp for schedule(static) nowait
        for (long r = 0; r < g.rows; r++) {
            char *to = out + (r * g.columns * g.filters + b * BLOCK) * (g.narrow ? 2 : 4);
            const char *from = x + r * g.down;
            long kind = g.variants == 1 || r == g.first ? 0 : r == g.last ? 6 : 3;
            long columns[4] = {0, g.variants > 1, g.columns - (g.variants > 1), g.columns};
            if (!begun++) { /* a first value, as pivot */
                part(&g, from, weights + (kind * blocks + b) * block, block, left, factors + kind * padded + b * BLOCK,
                     bias + b * BLOCK, to, sums, 0, 1);
                for (int z = 0; z < step; z++) memcpy(sums[z].pivot, sums[z].sum, sizeof sums[z].sum);
            }
            for (int z = 0; z < step; z++) clear(sums + z);
            for (int c = 0; c < 3; c++) {
                long variant = g.variants > 1 ? kind + c : 0;
                part(&g, from, weights + (variant * blocks + b) * block, block, left, factors + variant * padded + b * BLOCK,
                     bias + b * BLOCK, to, sums, columns[c], columns[c + 1]);
            }
            long first = 2 * (padded * omp_get_thread_num() + b * BLOCK);
            for (int z = 0; z < step; z++) add_up(sums + z, g.columns, all + first + 2 * z * BLOCK, ends + first + 2 * z * BLOCK);
        }
    }
    for (long i = 2 * padded; i < 2 * padded * threads; i++) { /* in a fixed order */
        long c = i % (2 * padded);
        all[c] += all[i];
        extend(ends + (c & ~1L), ends + (c | 1), ends[i]);
    }
    finish(all, ends, g.rows * g.columns, g.filters, g.phases, found);
    free(all);
    free(ends);
}
#else
long convolves(void) { return 0; }
void convolve(const char *x, const char *weights, const float *factors, const float *bias, char *out,
              const long *numbers, float *found) {}
#endif

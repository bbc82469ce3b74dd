/* The last step of super-resolution in one pass: a picture of bytes is enlarged by bicubic interpolation, what the
   network computed is added, and the sum is rounded to bytes. kernels.c includes this file. */

/* Keys's kernel with a = -0.5 at a distance d >= 0 of less than 2 pixels. */
static double keys(double d) {
    return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : ((-0.5 * d + 2.5) * d - 4) * d + 2;
}

/* The four pixels of a side of `size` that pixel `to` of the enlarged side depends on: the first one, and the weights.
   Pixels outside the picture have weight 0, and the sum is 1, as in PyTorch. */
static long taps(long to, long scale, long size, float *weights) {
    double place = (to + 0.5) / scale - 0.5, each[4], sum = 0;
    long first = (long)(place + 1) - 2;
    for (long k = 0; k < 4; k++) {
        double d = place < first + k ? first + k - place : place - first - k;
        each[k] = first + k < 0 || first + k >= size || d >= 2 ? 0 : keys(d);
        sum += each[k];
    }
    for (long k = 0; k < 4; k++) weights[k] = each[k] / sum;
    return first;
}

/* Enlarge one row of `width` values to `line`. phases: first pixel and weights for each of `scale` places inside. */
ALWAYS void widen(const float *row, long width, long scale, const long *first, const float (*weights)[4], float *line) {
    for (long p = 0; p < scale; p++) {
        const float *w = weights[p], *from = row + first[p];
        for (long j = 2; j < width - 2; j++)
            line[scale * j + p] = w[0] * from[j] + w[1] * from[j + 1] + w[2] * from[j + 2] + w[3] * from[j + 3];
    }
    for (long to = 0; to < scale * width; to++) {
        if (to == 2 * scale && width > 4) to = scale * (width - 2); /* the inside is done */
        float w[4], sum = 0;
        long at = taps(to, scale, width, w);
        for (long k = 0; k < 4; k++)
            if (w[k] != 0) sum += w[k] * row[at + k];
        line[to] = sum;
    }
}

/* Add 127.5 times `cells` runs of `factor` values, which are `step` values apart, and round to bytes. */
ALWAYS void add(float *line, const void *more, long at_value, int narrow, long step, long factor, long cells,
                long length, uint8_t *out) {
    for (long j = 0; j < cells; j++)
        for (long p = 0; p < factor; p++) line[factor * j + p] += 127.5f * at(more, at_value + j * step + p, narrow);
    for (long i = 0; i < length; i++) {
        float v = line[i] + 0.5f;
        v = v < 0 ? 0 : v > 255 ? 255 : v;
        out[i] = (uint8_t)(int)v;
    }
}

ALWAYS long infinite(const void *x, long from, long count, int narrow) {
    long found = 0; /* by their bits, because the compiler may assume that all numbers are finite */
    for (long i = from; i < from + count; i++)
        found |= narrow ? (((const uint16_t *)x)[i] & 0x7f80) == 0x7f80
                        : (((const uint32_t *)x)[i] & 0x7f800000) == 0x7f800000;
    return found;
}

/* out = bytes(enlarged x + 127.5 * more), for three planes of height * width bytes, one after the other.
   more: (rows, columns, 3 * factor^2), in float, or bfloat16 if `narrow`, in the order of a pixel shuffle. Returns
   whether all its values are finite. Rows and columns that lie outside the result are left out. */
long enlarge(const uint8_t *x, long height, long width, const void *more, long narrow, long columns, long factor,
             long scale, uint8_t *out) {
    long tall = scale * height, wide = scale * width, step = 3 * factor * factor, bad = 0;
    long rows = (tall + factor - 1) / factor, cells = (wide + factor - 1) / factor, first[64];
    float inside[64][4];
    for (long p = 0; p < scale; p++) first[p] = taps(2 * scale + p, scale, 5, inside[p]) - 2;
#pragma omp parallel reduction(| : bad)
    {
        float *row = malloc((width + factor * cells) * sizeof(float)), *line = row + width;
#pragma omp for schedule(static)
        for (long i = 0; i < rows; i++) {
            long start = i * columns * step;
            bad |= narrow ? infinite(more, start, cells * step, 1) : infinite(more, start, cells * step, 0);
            for (long k = 0; k < 3 * factor; k++) {
                long plane = k / factor, to = i * factor + k % factor;
                if (to >= tall) continue;
                float w[4];
                long at_row = taps(to, scale, height, w);
                const uint8_t *from[4], *source = x + plane * height * width;
                for (long t = 0; t < 4; t++) from[t] = source + width * (w[t] != 0 ? at_row + t : 0);
                for (long j = 0; j < width; j++)
                    row[j] = w[0] * from[0][j] + w[1] * from[1][j] + w[2] * from[2][j] + w[3] * from[3][j];
                uint8_t *result = out + (plane * tall + to) * wide;
                long value = start + factor * k;
                if (scale == 2)
                    widen(row, width, 2, first, inside, line);
                else if (scale == 4)
                    widen(row, width, 4, first, inside, line);
                else
                    widen(row, width, scale, first, inside, line);
                if (narrow && factor == 4)
                    add(line, more, value, 1, step, 4, cells, wide, result);
                else if (narrow)
                    add(line, more, value, 1, step, factor, cells, wide, result);
                else
                    add(line, more, value, 0, step, factor, cells, wide, result);
            }
        }
        free(row);
    }
    return !bad;
}

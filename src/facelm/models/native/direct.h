// Convolutions as one matrix product: 1x1 ones, and those that step over pixels.
//
// A row of the left matrix is the window of the source that one output pixel depends on; there is no row for padding.
#pragma once

#include <omp.h>

#include "lanes.h"

// The window that the output pixel (i, j) of a grid depends on begins at (i * step + top, j * step + left).
struct Window {
    int height, width, channels;  // of the source
    int rows, columns;            // of the window
    int top, left, step;

    int depth() const { return rows * columns * channels; }
};

// Output pixels: (i, j) lies at (i * step + top, j * step + left) of a map.
struct Grid {
    int height, width;  // of the map
    int top, left, step;
    int down, across;

    Grid(int height, int width, int top = 0, int left = 0, int step = 1)
        : height(height), width(width), top(top), left(left), step(step), down((height - top + step - 1) / step),
          across((width - left + step - 1) / step) {}
};

// Walks over the pixels of a grid in all images, from the one with number `t` on.
struct Walk {
    const Grid& grid;
    int image, i, j;

    Walk(const Grid& grid, int t)
        : grid(grid), image(t / (grid.down * grid.across)), i(t / grid.across % grid.down), j(t % grid.across) {}
    void next() {
        if (++j < grid.across) return;
        j = 0;
        if (++i < grid.down) return;
        i = 0;
        ++image;
    }
    size_t pixel() const {
        return (size_t(image) * grid.height + i * grid.step + grid.top) * grid.width + j * grid.step + grid.left;
    }
};

// The windows of `count` output pixels from `first` on, one every `line` numbers.
inline void gather_windows(const Window& from, const Grid& to, const Real* x, int first, int count, Real* rows,
                           int line) {
    const int K = from.channels, run = from.columns * K;
    Walk walk(to, first);
    for (int t = 0; t < count; ++t, rows += line, walk.next()) {
        const int top = walk.i * from.step + from.top, left = walk.j * from.step + from.left;
        const int begin = std::max(0, -left), end = std::min(from.columns, from.width - left);
        Real* row = rows;
        for (int i = 0; i < from.rows; ++i, row += run) {
            const bool inside = unsigned(top + i) < unsigned(from.height) && begin < end;
            if (!inside || begin > 0 || end < from.columns) std::fill(row, row + run, Real(0));
            if (!inside) continue;
            const long pixel = (long(walk.image) * from.height + top + i) * from.width + left;
            std::copy(x + (pixel + begin) * K, x + (pixel + end) * K, row + begin * K);
        }
    }
}

// y = relu?(windows weight + bias + residual) at the pixels of the grid; weight[panel][depth][its columns].
inline void direct(const Real* x, const Window& from, const Real* weight, const Real* bias, const Real* residual,
                   Real* y, const Grid& to, int batch, int N, bool relu, int threads) {
    const int columns = slots(N), depth = from.depth(), pixels = batch * to.down * to.across;
    const int fits = 32 * 1024 / int(std::max(depth, columns) * sizeof(Real)) / 4 * 4;  // of the innermost cache
    const int block = std::max(1, std::min({std::max(8, fits), 48, (pixels + threads - 1) / threads}));
    const bool in_place = depth == from.channels && from.step == 1;
    const bool straight = to.step == 1 && N == columns && !bias && !residual && !relu;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int g = 0; g < (pixels + block - 1) / block; ++g) {
        const int first = g * block, count = std::min(block, pixels - first);
        Real* products = straight ? y + size_t(first) * N : scratch(1, size_t(block) * columns);
        Real* windows = in_place ? nullptr : scratch(0, size_t(block) * depth);
        const Real* rows = windows ? windows : x + size_t(first) * depth;
        if (windows) gather_windows(from, to, x, first, count, windows, depth);
        for (int n = 0; n < columns; n += 3 * kLanes) {
            const int width = panel_width(n, columns);
            multiply_panel(rows, depth, 1, weight + size_t(n) * depth, width, products + n, columns, count, depth,
                           width);
        }
        Walk walk(to, first);
        for (int t = 0; t < count && !straight; ++t, walk.next()) {
            const size_t pixel = walk.pixel() * N;
            for (int n = 0; n < columns; n += kLanes) {
                const int at = lane_start(n, N);
                Vec v = load(products + t * columns + n);
                if (bias) v += load(bias + at);
                if (residual) v += load(residual + pixel + at);
                store(y + pixel + at, relu ? positive(v) : v);
            }
        }
    }
}

// packed[panel][taps][K][its columns]: the taps (first, first + step, ...) of each direction, as a window has them.
struct Taps {
    int first, step, count;
};
inline void pack_taps(const Real* weight, Kernel step, int N, int K, Taps rows, Taps columns, Real* packed) {
    const int width = slots(N), depth = rows.count * columns.count * K;
    for (int i = 0; i < rows.count; ++i)
        for (int j = 0; j < columns.count; ++j) {
            const Real* tap = weight + (rows.first + i * rows.step) * step.row +
                              (columns.first + j * columns.step) * step.column;
            for (int k = 0; k < K; ++k)
                for (int n = 0; n < width; n += kLanes) {
                    const int panel = n / (3 * kLanes) * 3 * kLanes;
                    Real* to = packed + size_t(panel) * depth + n - panel +
                               size_t((i * columns.count + j) * K + k) * panel_width(panel, width);
                    store(to, load_steps(tap + lane_start(n, N) * step.output + k * step.input, step.output));
                }
        }
}

// The weight's gradient for row `r` of the windows, from all threads' sums[depth][slots(N)].
inline void write_row(const Real* sums, size_t length, int threads, int r, Real* gradient, Kernel step,
                      const Window& from, int N) {
    const int k = r % from.channels, tap = r / from.channels, columns = slots(N);
    Real* to = gradient + k * step.input + tap / from.columns * step.row + tap % from.columns * step.column;
    for (int n = 0; n < columns; n += kLanes) {
        Vec sum{};
        for (int t = 0; t < threads; ++t) sum += load(sums + t * length + size_t(r) * columns + n);
        for (int l = 0; l < kLanes; ++l) to[(lane_start(n, N) + l) * step.output] = sum[l];
    }
}

// The gradient of direct() with respect to its weight [N][channels][rows][columns], in the order that `step` says.
inline void direct_weight_gradient(const Real* x, const Window& from, const Real* dy, const Grid& to, Real* gradient,
                                   Kernel step, int batch, int N, int threads) {
    const int columns = slots(N), depth = from.depth(), pixels = batch * to.down * to.across;
    const int line = depth + 16;  // not a power of two: rows would push each other out of the cache
    const int block = std::clamp(kCache / int((line + columns) * sizeof(Real)), 16, 96);
    const int blocks = (pixels + block - 1) / block;
    const size_t length = size_t(depth) * columns;
    Real* sums = scratch(5, length * threads);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), all = omp_get_num_threads();
        Real* windows = scratch(0, size_t(block) * line);
        Real* spread = scratch(1, size_t(block) * columns);
        const int begin = long(blocks) * me / all, end = long(blocks) * (me + 1) / all;
        if (begin == end) std::fill(sums + me * length, sums + (me + 1) * length, Real(0));
        for (int g = begin; g < end; ++g) {
            const int first = g * block, count = std::min(block, pixels - first);
            gather_windows(from, to, x, first, count, windows, line);
            for (int t = 0; t < count; ++t)
                for (int n = 0; n < columns; n += kLanes)
                    store(spread + t * columns + n, load(dy + size_t(first + t) * N + lane_start(n, N)));
            for (int n = 0; n < columns; n += 3 * kLanes)
                multiply_panel(windows, 1, line, spread + n, columns, sums + me * length + n, columns, depth, count,
                               panel_width(n, columns), g > begin);
        }
#pragma omp barrier
#pragma omp for
        for (int r = 0; r < depth; ++r) write_row(sums, length, all, r, gradient, step, from, N);
    }
}

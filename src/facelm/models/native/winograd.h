// 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.
//
// Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. The weights arrive
// transformed by pack_weight.
#pragma once

#include <omp.h>

#include "lanes.h"

constexpr int kTile = 4, kPatch = 6, kPoints = 36;

// The transforms of pixels read through `get(i)` and hand their results to `put(i, value)`: no detour by memory.

// Six values -> B^T d, six.
template <class Get, class Put>
inline void to_points(Get get, Put put) {
    const Vec d1 = get(1), d2 = get(2), d3 = get(3), d4 = get(4);
    const Vec a = d4 - Real(4) * d2, b = d3 - Real(4) * d1, c = d4 - d2, e = Real(2) * (d3 - d1);
    put(0, Real(4) * get(0) - Real(5) * d2 + d4);
    put(1, a + b);
    put(2, a - b);
    put(3, c + e);
    put(4, c - e);
    put(5, Real(4) * d1 - Real(5) * d3 + get(5));
}

// Six values -> A^T m, four.
template <class Get, class Put>
inline void from_points(Get get, Put put) {
    const Vec m1 = get(1), m2 = get(2), m3 = get(3), m4 = get(4);
    const Vec s1 = m1 + m2, d1 = m1 - m2, s2 = m3 + m4, d2 = m3 - m4;
    put(0, get(0) + s1 + s2);
    put(1, d1 + Real(2) * d2);
    put(2, s1 + Real(4) * s2);
    put(3, d1 + Real(8) * d2 + get(5));
}

// Four values -> A y, six: the transpose of from_points, for gradients.
template <class Get, class Put>
inline void spread_to_points(Get get, Put put) {
    const Vec y0 = get(0), y1 = get(1), y2 = get(2), y3 = get(3);
    const Vec e1 = y0 + y2, o1 = y1 + y3, e2 = y0 + Real(4) * y2, o2 = Real(2) * y1 + Real(8) * y3;
    put(0, y0);
    put(1, e1 + o1);
    put(2, e1 - o1);
    put(3, e2 + o2);
    put(4, e2 - o2);
    put(5, y3);
}

// Three taps -> G w, six.
inline void kernel_to_points(const Vec* w, int step, Vec* g, int step_out) {
    const Vec w0 = w[0], w1 = w[step], w2 = w[2 * step];
    const Vec s = (w0 + w2) * Real(1. / 6), m = w1 * Real(1. / 6);
    const Vec e = w0 * Real(1. / 24) + w2 * Real(1. / 6), o = w1 * Real(1. / 12);
    g[0] = w0 * Real(.25);
    g[step_out] = -s - m;
    g[2 * step_out] = m - s;
    g[3 * step_out] = e + o;
    g[4 * step_out] = e - o;
    g[5 * step_out] = w2;
}

// Six values -> G^T g, three: the transpose, for gradients.
inline void points_to_kernel(const Vec* g, int step, Vec* w, int step_out) {
    const Vec s = (g[step] + g[2 * step]) * Real(1. / 6), m = (g[2 * step] - g[step]) * Real(1. / 6);
    const Vec e = g[3 * step] + g[4 * step], o = g[3 * step] - g[4 * step];
    w[0] = g[0] * Real(.25) - s + e * Real(1. / 24);
    w[step_out] = m + o * Real(1. / 12);
    w[2 * step_out] = e * Real(1. / 6) - s + g[5 * step];
}

// packed[36][panel][inputs][its columns]: every 3x3 kernel at the 36 points, as winograd() reads them.
inline void pack_weight(const Real* weight, Kernel step, int N, int K, Real* packed, int threads) {
    const int columns = slots(N);
#pragma omp parallel for num_threads(threads)
    for (int n = 0; n < columns; n += kLanes)
        for (int k = 0; k < K; ++k) {
            Vec taps[9], h[18], g[36];
            for (int i = 0; i < 9; ++i)
                taps[i] = load_steps(weight + lane_start(n, N) * step.output + k * step.input + i / 3 * step.row +
                                         i % 3 * step.column,
                                     step.output);
            UNROLL for (int j = 0; j < 3; ++j) kernel_to_points(taps + j, 3, h + j, 3);
            UNROLL for (int i = 0; i < 6; ++i) kernel_to_points(h + 3 * i, 1, g + 6 * i, 1);
            const int panel = n / (3 * kLanes) * 3 * kLanes;
            Real* to = packed + size_t(panel) * K + size_t(k) * panel_width(panel, columns) + n - panel;
            for (int p = 0; p < kPoints; ++p) store(to + size_t(p) * columns * K, g[p]);
        }
}

// How the output is cut into 4x4 tiles and the tiles into blocks, the unit of work of a thread.
struct Tiles {
    int height, width, down, across, count, block, blocks;

    Tiles(int batch, int height, int width, int channels, int threads, int cache = kCache)
        : height(height), width(width), down((height + 3) / 4), across((width + 3) / 4), count(batch * down * across) {
        const int fits = cache / int(kPoints * channels * sizeof(Real));
        block = std::min({std::max(4, fits / 4 * 4), 32, std::max(1, (count + threads - 1) / threads)});
        blocks = (count + block - 1) / block;
    }
    int image(int tile) const { return tile / (down * across); }
    int top(int tile) const { return tile / across % down * kTile; }
    int left(int tile) const { return tile % across * kTile; }
};

// How far the points of a block lie apart: an odd number of cache lines, so that they do not push each other out.
inline size_t pitch(size_t numbers) {
    const size_t line = 64 / sizeof(Real);
    return ((numbers + line - 1) / line | 1) * line;
}

// One vector of a square of pixels: in its map, or copied with zeros where it hangs over the map's edge.
struct Square {
    const Real* corner;
    long row, column;  // steps
    Vec copy[kPatch * kPatch];

    Square(const Real* map, int H, int W, int channels, int image, int top, int left, int side, int at) {
        corner = map + ((long(image) * H + top) * W + left) * channels + at;
        row = long(W) * channels;
        column = channels;
        if (top >= 0 && left >= 0 && top + side <= H && left + side <= W) return;
        std::fill(copy, copy + side * side, Vec{});
        const int i_end = std::min(side, H - top), j_end = std::min(side, W - left);
        for (int i = std::max(0, -top); i < i_end; ++i)
            for (int j = std::max(0, -left); j < j_end; ++j) copy[i * side + j] = (*this)(i, j);
        corner = reinterpret_cast<const Real*>(copy);
        row = side * kLanes;
        column = kLanes;
    }
    Vec operator()(int i, int j) const { return load(corner + i * row + j * column); }
};

// The patches of `size` tiles from `first` on, transformed: points[36][pitch of [size][channels]].
inline void gather_points(const Tiles& tiles, const Real* x, int channels, int first, int size, Real* points) {
    const size_t apart = pitch(size_t(size) * channels);
    for (int t = 0; t < size; ++t) {
        const int image = tiles.image(first + t), top = tiles.top(first + t) - 1, left = tiles.left(first + t) - 1;
        for (int k = 0; k < channels; k += kLanes) {
            const int at = lane_start(k, channels);
            const Square d(x, tiles.height, tiles.width, channels, image, top, left, kPatch, at);
            Real* to = points + size_t(t) * channels + at;
            Vec h[36];
            UNROLL for (int j = 0; j < 6; ++j)
                to_points([&](int i) { return d(i, j); }, [&](int i, Vec v) { h[6 * i + j] = v; });
            UNROLL for (int i = 0; i < 6; ++i)
                to_points([&](int j) { return h[6 * i + j]; },
                          [&](int j, Vec v) { store(to + (6 * i + j) * apart, v); });
        }
    }
}

// The gradients of `size` tiles of the output, at the points: points[36][pitch of [size][slots(channels)]].
inline void spread_points(const Tiles& tiles, const Real* dy, int channels, int first, int size, Real* points) {
    const int columns = slots(channels);
    const size_t apart = pitch(size_t(size) * columns);
    for (int t = 0; t < size; ++t) {
        const int image = tiles.image(first + t), top = tiles.top(first + t), left = tiles.left(first + t);
        for (int n = 0; n < columns; n += kLanes) {
            const int at = lane_start(n, channels);
            const Square d(dy, tiles.height, tiles.width, channels, image, top, left, kTile, at);
            Real* to = points + size_t(t) * columns + n;
            Vec h[24];
            UNROLL for (int j = 0; j < 4; ++j)
                spread_to_points([&](int i) { return d(i, j); }, [&](int i, Vec v) { h[4 * i + j] = v; });
            UNROLL for (int i = 0; i < 6; ++i)
                spread_to_points([&](int j) { return h[4 * i + j]; },
                                 [&](int j, Vec v) { store(to + (6 * i + j) * apart, v); });
        }
    }
}

// The results of `size` tiles from products[36][pitch of [size][slots(N)]]: y = relu?(them + bias + residual).
inline void write_tiles(const Tiles& tiles, const Real* products, const Real* bias, const Real* residual, Real* y,
                        int N, int first, int size, bool relu) {
    const int columns = slots(N), W = tiles.width;
    const size_t apart = pitch(size_t(size) * columns);
    for (int t = 0; t < size; ++t) {
        const int top = tiles.top(first + t), left = tiles.left(first + t);
        const int rows = std::min(kTile, tiles.height - top), across = std::min(kTile, W - left);
        const size_t corner = ((size_t(tiles.image(first + t)) * tiles.height + top) * W + left) * N;
        for (int n = 0; n < N; n += kLanes) {
            const int at = lane_start(n, N);
            const Real* from = products + size_t(t) * columns + n;
            Vec h[24], m[16];
            UNROLL for (int j = 0; j < 6; ++j)
                from_points([&](int i) { return load(from + (6 * i + j) * apart); },
                            [&](int i, Vec v) { h[6 * i + j] = v; });
            UNROLL for (int i = 0; i < 4; ++i)
                from_points([&](int j) { return h[6 * i + j]; }, [&](int j, Vec v) { m[4 * i + j] = v; });
            const Vec b = bias ? load(bias + at) : Vec{};
            for (int i = 0; i < rows; ++i)
                for (int j = 0; j < across; ++j) {
                    const size_t to = corner + (size_t(i) * W + j) * N + at;
                    Vec v = m[4 * i + j] + b;
                    if (residual) v += load(residual + to);
                    store(y + to, relu ? positive(v) : v);
                }
        }
    }
}

// y = relu?(conv(x) + bias + residual); NHWC, dense.
inline void winograd(const Real* x, const Real* weight, const Real* bias, const Real* residual, Real* y, int batch,
                     int H, int W, int K, int N, bool relu, int threads) {
    const int columns = slots(N);
    const Tiles tiles(batch, H, W, K + columns, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int g = 0; g < tiles.blocks; ++g) {
        const int first = g * tiles.block, size = std::min(tiles.block, tiles.count - first);
        const size_t points_apart = pitch(size_t(size) * K), products_apart = pitch(size_t(size) * columns);
        Real* points = scratch(0, kPoints * points_apart);
        Real* products = scratch(1, kPoints * products_apart);
        gather_points(tiles, x, K, first, size, points);
        for (int p = 0; p < kPoints; ++p)
            for (int n = 0; n < columns; n += 3 * kLanes) {
                const int width = panel_width(n, columns);
                multiply_panel(points + p * points_apart, K, 1, weight + (size_t(p) * columns + n) * K, width,
                               products + p * products_apart + n, columns, size, K, width);
            }
        write_tiles(tiles, products, bias, residual, y, N, first, size, relu);
    }
}

// The kernels' gradients for the vector of outputs at slot `n`, from all threads' sums[36][K][slots(N)].
inline void write_taps(const Real* sums, size_t length, int threads, int n, Real* gradient, Kernel step, int K,
                       int N) {
    const int columns = slots(N);
    for (int k = 0; k < K; ++k) {
        Vec g[36], h[18], taps[9];
        for (int p = 0; p < kPoints; ++p) {
            g[p] = Vec{};
            for (int t = 0; t < threads; ++t) g[p] += load(sums + t * length + (size_t(p) * K + k) * columns + n);
        }
        UNROLL for (int j = 0; j < 6; ++j) points_to_kernel(g + j, 6, h + j, 6);
        UNROLL for (int i = 0; i < 3; ++i) points_to_kernel(h + 6 * i, 1, taps + 3 * i, 1);
        for (int i = 0; i < 9; ++i)
            for (int l = 0; l < kLanes; ++l)
                gradient[(lane_start(n, N) + l) * step.output + k * step.input + i / 3 * step.row +
                         i % 3 * step.column] = taps[i][l];
    }
}

// The gradient of winograd() with respect to its weight [outputs][inputs][3][3], in the order that `step` says.
inline void winograd_weight_gradient(const Real* x, const Real* dy, Real* gradient, Kernel step, int batch, int H,
                                     int W, int K, int N, int threads) {
    const int columns = slots(N);
    const size_t length = size_t(kPoints) * K * columns;
    // Sums that do not fit into a core's own cache are to be read and written seldom: larger blocks.
    const int cache = (length * sizeof(Real) > (2 << 20) ? 4 : 1) * kCache;
    const Tiles tiles(batch, H, W, K + columns, threads, cache);
    Real* sums = scratch(5, length * threads);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), all = omp_get_num_threads();
        Real* sum = sums + length * me;
        const int begin = long(tiles.blocks) * me / all, end = long(tiles.blocks) * (me + 1) / all;
        if (begin == end) std::fill(sum, sum + length, Real(0));
        for (int g = begin; g < end; ++g) {
            const int first = g * tiles.block, size = std::min(tiles.block, tiles.count - first);
            const size_t points_apart = pitch(size_t(size) * K), spread_apart = pitch(size_t(size) * columns);
            Real* points = scratch(0, kPoints * points_apart);
            Real* spread = scratch(1, kPoints * spread_apart);
            gather_points(tiles, x, K, first, size, points);
            spread_points(tiles, dy, N, first, size, spread);
            for (int p = 0; p < kPoints; ++p)
                for (int n = 0; n < columns; n += 3 * kLanes)
                    multiply_panel(points + p * points_apart, 1, K, spread + p * spread_apart + n, columns,
                                   sum + size_t(p) * K * columns + n, columns, K, size, panel_width(n, columns),
                                   g > begin);
        }
#pragma omp barrier
#pragma omp for
        for (int n = 0; n < columns; n += kLanes) write_taps(sums, length, all, n, gradient, step, K, N);
    }
}

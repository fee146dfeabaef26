// 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.
//
// Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016. The weights arrive
// transformed by pack_weight.
#pragma once

#include <omp.h>

#include "lanes.h"

constexpr int kTile = 4, kPatch = 6, kPoints = 36;

// Six values `step` apart -> B^T d, written `step_out` apart.
inline void to_points(const Vec* d, int step, Vec* t, int step_out) {
    const Vec d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const Vec a = d4 - Real(4) * d2, b = d3 - Real(4) * d1, c = d4 - d2, e = Real(2) * (d3 - d1);
    t[0] = Real(4) * d[0] - Real(5) * d2 + d4;
    t[step_out] = a + b;
    t[2 * step_out] = a - b;
    t[3 * step_out] = c + e;
    t[4 * step_out] = c - e;
    t[5 * step_out] = Real(4) * d1 - Real(5) * d3 + d[5 * step];
}

// Six values -> A^T m, four.
inline void from_points(const Vec* m, int step, Vec* y, int step_out) {
    const Vec m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const Vec s1 = m1 + m2, d1 = m1 - m2, s2 = m3 + m4, d2 = m3 - m4;
    y[0] = m[0] + s1 + s2;
    y[step_out] = d1 + Real(2) * d2;
    y[2 * step_out] = s1 + Real(4) * s2;
    y[3 * step_out] = d1 + Real(8) * d2 + m[5 * step];
}

// Four values -> A y, six: the transpose of from_points, for gradients.
inline void spread_to_points(const Vec* y, int step, Vec* m, int step_out) {
    const Vec y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const Vec e1 = y0 + y2, o1 = y1 + y3, e2 = y0 + Real(4) * y2, o2 = Real(2) * y1 + Real(8) * y3;
    m[0] = y0;
    m[step_out] = e1 + o1;
    m[2 * step_out] = e1 - o1;
    m[3 * step_out] = e2 + o2;
    m[4 * step_out] = e2 - o2;
    m[5 * step_out] = y3;
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
                for (int l = 0; l < kLanes; ++l)
                    taps[i][l] = weight[(lane_start(n, N) + l) * step.output + k * step.input + i / 3 * step.row +
                                        i % 3 * step.column];
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

// The patches of `size` tiles from `first` on, transformed: points[36][size][channels].
inline void gather_points(const Tiles& tiles, const Real* x, int channels, int first, int size, Real* points) {
    const int H = tiles.height, W = tiles.width;
    for (int t = 0; t < size; ++t) {
        const int top = tiles.top(first + t) - 1, left = tiles.left(first + t) - 1;
        const bool inside = top >= 0 && left >= 0 && top + kPatch <= H && left + kPatch <= W;
        const Real* corner = x + ((long(tiles.image(first + t)) * H + top) * W + left) * channels;
        for (int k = 0; k < channels; k += kLanes) {
            const int at = lane_start(k, channels);
            Vec d[36], h[36];
            for (int i = 0; i < kPatch; ++i)
                for (int j = 0; j < kPatch; ++j) {
                    const bool here = inside || (unsigned(top + i) < unsigned(H) && unsigned(left + j) < unsigned(W));
                    d[i * 6 + j] = here ? load(corner + (long(i) * W + j) * channels + at) : Vec{};
                }
            UNROLL for (int j = 0; j < 6; ++j) to_points(d + j, 6, h + j, 6);
            UNROLL for (int i = 0; i < 6; ++i) to_points(h + 6 * i, 1, d + 6 * i, 1);
            for (int p = 0; p < kPoints; ++p) store(points + (size_t(p) * size + t) * channels + at, d[p]);
        }
    }
}

// The gradients of `size` tiles of the output, at the points: points[36][size][slots(channels)].
inline void spread_points(const Tiles& tiles, const Real* dy, int channels, int first, int size, Real* points) {
    const int columns = slots(channels);
    for (int t = 0; t < size; ++t) {
        const int top = tiles.top(first + t), left = tiles.left(first + t);
        const int rows = std::min(kTile, tiles.height - top), across = std::min(kTile, tiles.width - left);
        const Real* corner = dy + ((size_t(tiles.image(first + t)) * tiles.height + top) * tiles.width + left) * channels;
        for (int n = 0; n < columns; n += kLanes) {
            const int at = lane_start(n, channels);
            Vec d[16], h[24], m[36];
            for (int i = 0; i < kTile; ++i)
                for (int j = 0; j < kTile; ++j)
                    d[4 * i + j] =
                        i < rows && j < across ? load(corner + (size_t(i) * tiles.width + j) * channels + at) : Vec{};
            UNROLL for (int j = 0; j < 4; ++j) spread_to_points(d + j, 4, h + j, 4);
            UNROLL for (int i = 0; i < 6; ++i) spread_to_points(h + 4 * i, 1, m + 6 * i, 1);
            for (int p = 0; p < kPoints; ++p) store(points + (size_t(p) * size + t) * columns + n, m[p]);
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
        Real* points = scratch(0, size_t(kPoints) * size * K);
        Real* products = scratch(1, size_t(kPoints) * size * columns);
        gather_points(tiles, x, K, first, size, points);
        for (int p = 0; p < kPoints; ++p)
            for (int n = 0; n < columns; n += 3 * kLanes) {
                const int width = panel_width(n, columns);
                multiply_panel(points + size_t(p) * size * K, K, 1, weight + (size_t(p) * columns + n) * K, width,
                               products + size_t(p) * size * columns + n, columns, size, K, width);
            }
        for (int t = 0; t < size; ++t) {
            const int top = tiles.top(first + t), left = tiles.left(first + t);
            const int rows = std::min(kTile, H - top), across = std::min(kTile, W - left);
            const size_t corner = ((size_t(tiles.image(first + t)) * H + top) * W + left) * N;
            for (int n = 0; n < N; n += kLanes) {
                const int at = lane_start(n, N);
                Vec m[36], h[24];
                for (int p = 0; p < kPoints; ++p) m[p] = load(products + (size_t(p) * size + t) * columns + n);
                UNROLL for (int j = 0; j < 6; ++j) from_points(m + j, 6, h + j, 6);
                UNROLL for (int i = 0; i < 4; ++i) from_points(h + 6 * i, 1, m + 4 * i, 1);
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
            Real* points = scratch(0, size_t(kPoints) * size * K);
            Real* spread = scratch(1, size_t(kPoints) * size * columns);
            gather_points(tiles, x, K, first, size, points);
            spread_points(tiles, dy, N, first, size, spread);
            for (int p = 0; p < kPoints; ++p)
                for (int n = 0; n < columns; n += 3 * kLanes)
                    multiply_panel(points + size_t(p) * size * K, 1, K, spread + size_t(p) * size * columns + n,
                                   columns, sum + size_t(p) * K * columns + n, columns, K, size,
                                   panel_width(n, columns), g > begin);
        }
#pragma omp barrier
#pragma omp for
        for (int n = 0; n < columns; n += kLanes)
            for (int k = 0; k < K; ++k) {
                Vec g[36], h[18], taps[9];
                for (int p = 0; p < kPoints; ++p) {
                    g[p] = Vec{};
                    for (int t = 0; t < all; ++t) g[p] += load(sums + t * length + (size_t(p) * K + k) * columns + n);
                }
                UNROLL for (int j = 0; j < 6; ++j) points_to_kernel(g + j, 6, h + j, 6);
                UNROLL for (int i = 0; i < 3; ++i) points_to_kernel(h + 6 * i, 1, taps + 3 * i, 1);
                for (int i = 0; i < 9; ++i)
                    for (int l = 0; l < kLanes; ++l)
                        gradient[(lane_start(n, N) + l) * step.output + k * step.input + i / 3 * step.row +
                                 i % 3 * step.column] = taps[i][l];
            }
    }
}

// Bilinear enlargement by a whole factor (align_corners=False), the sum and the ReLU after it, and its gradient.
#pragma once

#include "lanes.h"

// Where the row (or column) `q` of the enlarged map lies between two of the map's: from + share of the way to `to`.
struct Between {
    int from, to;
    Real share;

    Between(int q, int scale, int size) {
        const Real at = std::max(Real(0), (q + Real(.5)) / scale - Real(.5));
        from = int(at);
        to = std::min(from + 1, size - 1);
        share = at - from;
    }
    // How much of the map's row `p` it holds.
    Real part(int p) const { return (p == from ? 1 - share : 0) + (p == to ? share : 0); }
};

// y = relu?(residual + x enlarged `scale` times)
inline void enlarge(const Stored* x, const Stored* residual, Stored* y, int batch, int H, int W, int C, int scale,
                    bool relu, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < batch * H * scale; ++row) {
        const Between rows(row % (H * scale), scale, H);
        const Stored* above = x + (size_t(row / (H * scale)) * H + rows.from) * W * C;
        const Stored* below = x + (size_t(row / (H * scale)) * H + rows.to) * W * C;
        Real* line = scratch(2, size_t(W) * C);
        for (int q = 0; q < W * C; ++q) line[q] = above[q] + rows.share * (Real(below[q]) - above[q]);
        for (int j = 0; j < W * scale; ++j) {
            const Between columns(j, scale, W);
            for (int c = 0; c < C; c += kLanes) {
                const int at = lane_start(c, C);
                const size_t to = (size_t(row) * W * scale + j) * C + at;
                const Vec left = load(line + columns.from * C + at), right = load(line + columns.to * C + at);
                Vec v = left + columns.share * (right - left);
                if (residual) v += load(residual + to);
                store(y + to, relu ? positive(v) : v);
            }
        }
    }
}

// dx from dy, the gradient before the ReLU: every pixel collects from the enlarged ones that hold some of it.
inline void enlarge_gradient(const Stored* dy, Stored* dx, int batch, int H, int W, int C, int scale, int threads) {
    const int wide = W * scale * C;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < batch * H; ++row) {
        const int p = row % H;
        Real* line = scratch(2, wide);
        std::fill(line, line + wide, Real(0));
        for (int q = std::max(0, (p - 1) * scale); q < std::min(H, p + 2) * scale; ++q) {
            const Real part = Between(q, scale, H).part(p);
            const Stored* from = dy + (size_t(row / H) * H * scale + q) * wide;
            if (part > 0)
                for (int i = 0; i < wide; ++i) line[i] += part * from[i];
        }
        for (int j = 0; j < W; ++j) {
            Real* sum = scratch(0, C);
            std::fill(sum, sum + C, Real(0));
            for (int q = std::max(0, (j - 1) * scale); q < std::min(W, j + 2) * scale; ++q) {
                const Real part = Between(q, scale, W).part(j);
                if (part > 0)
                    for (int c = 0; c < C; ++c) sum[c] += part * line[q * C + c];
            }
            for (int c = 0; c < C; c += kLanes) {
                const int at = lane_start(c, C);
                store(dx + (size_t(row) * W + j) * C + at, load(sum + at));
            }
        }
    }
}

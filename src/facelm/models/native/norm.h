// Batch norm in training, with the sum and the ReLU that follow it, over `rows` pixels of `channels` numbers each.
#pragma once

#include <omp.h>

#include "lanes.h"

// Sums over pixels, in pieces that stay short enough for the number type and are collected in double precision.
// `piece(first, last, sums)` adds to sums[which][slots]; totals[which][channels] are what all threads found together.
template <class Piece>
void sum_over_pixels(long rows, int channels, int which, double* totals, int threads, Piece piece) {
    const int width = which * slots(channels);
    std::vector<double> found(size_t(threads) * width, 0.0);
#pragma omp parallel num_threads(threads)
    {
        const int me = omp_get_thread_num(), all = omp_get_num_threads();
        Real* sums = scratch(3, width);
        for (long first = rows * me / all, end = rows * (me + 1) / all; first < end; first += 256) {
            std::fill(sums, sums + width, Real(0));
            piece(first, std::min(first + 256, end), sums);
            for (int i = 0; i < width; ++i) found[size_t(me) * width + i] += sums[i];
        }
    }
    for (int w = 0; w < which; ++w)
        for (int n = 0; n < slots(channels); n += kLanes)
            for (int i = 0; i < kLanes; ++i) {
                double total = 0;
                for (int t = 0; t < threads; ++t) total += found[size_t(t) * width + w * slots(channels) + n + i];
                totals[w * channels + lane_start(n, channels) + i] = total;
            }
}

// totals[0] = sum of y - y[first pixel], totals[1] = sum of its square: the shift keeps the variance exact.
inline void norm_statistics(const Real* y, long rows, int channels, double* totals, int threads) {
    sum_over_pixels(rows, channels, 2, totals, threads, [=](long first, long last, Real* sums) {
        for (int n = 0; n < slots(channels); n += kLanes) {
            const int at = lane_start(n, channels);
            const Vec shift = load(y + at);
            Vec sum{}, squares{};
            for (long row = first; row < last; ++row) {
                const Vec v = load(y + row * channels + at) - shift;
                sum += v;
                squares += v * v;
            }
            store(sums + n, sum);
            store(sums + slots(channels) + n, squares);
        }
    });
}

// z = relu?(y * scale + shift + residual)
inline void norm_apply(const Real* y, const Real* scale, const Real* shift, const Real* residual, Real* z, long rows,
                       int channels, bool relu, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; ++row)
        for (int n = 0; n < channels; n += kLanes) {
            const int at = lane_start(n, channels);
            const size_t to = size_t(row) * channels + at;
            Vec v = load(y + to) * load(scale + at) + load(shift + at);
            if (residual) v += load(residual + to);
            store(z + to, relu ? positive(v) : v);
        }
}

// The gradient before the ReLU: dz where z is positive; z is null if there was no ReLU.
inline Vec before_relu(const Real* dz, const Real* z, size_t at) {
    const Vec g = load(dz + at);
    return z ? (load(z + at) > Real(0) ? g : Vec{}) : g;
}

// totals[0] = sum of g, totals[1] = sum of g * (y - mean), with g the gradient before the ReLU.
inline void norm_gradient_sums(const Real* dz, const Real* z, const Real* y, const Real* mean, long rows, int channels,
                               double* totals, int threads) {
    sum_over_pixels(rows, channels, 2, totals, threads, [=](long first, long last, Real* sums) {
        for (int n = 0; n < slots(channels); n += kLanes) {
            const int at = lane_start(n, channels);
            const Vec centre = load(mean + at);
            Vec sum{}, products{};
            for (long row = first; row < last; ++row) {
                const size_t from = size_t(row) * channels + at;
                const Vec g = before_relu(dz, z, from);
                sum += g;
                products += g * (load(y + from) - centre);
            }
            store(sums + n, sum);
            store(sums + slots(channels) + n, products);
        }
    });
}

// dy = a * g + b * y + c and, where asked for, dresidual = g.
inline void norm_gradient(const Real* dz, const Real* z, const Real* y, const Real* a, const Real* b, const Real* c,
                          Real* dy, Real* dresidual, long rows, int channels, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; ++row)
        for (int n = 0; n < channels; n += kLanes) {
            const int at = lane_start(n, channels);
            const size_t to = size_t(row) * channels + at;
            const Vec g = before_relu(dz, z, to);
            store(dy + to, load(a + at) * g + load(b + at) * load(y + to) + load(c + at));
            if (dresidual) store(dresidual + to, g);
        }
}

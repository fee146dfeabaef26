// Batch norm in training, with the sum and the ReLU that follow it, over `rows` pixels of `channels` numbers each.
#pragma once

#include <omp.h>

#include <cmath>
#include <type_traits>

#include "lanes.h"

struct Norm {  // mirrored by native.Norm
    int64_t rows;
    int32_t channels, relu, threads, unused;
    double epsilon, momentum;  // momentum: the share of this batch in the running statistics; negative: an average
    const Stored* y;
    const Real *weight, *bias;
    const Stored* residual;
    Stored* z;
    Real *running_mean, *running_variance;
    int64_t* tracked;
    double* saved;  // [mean, 1 / deviation, scale, shift][channels], for the gradient
    const Stored* dz;
    Stored *dy, *dresidual;
    Real *dweight, *dbias;
};

// Calls panel(V, n): the V <= 4 vectors of channels from slot `n` on, so that their numbers stay in registers.
template <class Panel>
void over_panels(int channels, Panel panel) {
    const int columns = slots(channels);
    for (int n = 0; n < columns; n += 4 * kLanes) {
        const int left = (columns - n) / kLanes;
        if (left >= 4) panel(std::integral_constant<int, 4>{}, n);
        if (left == 3) panel(std::integral_constant<int, 3>{}, n);
        if (left == 2) panel(std::integral_constant<int, 2>{}, n);
        if (left == 1) panel(std::integral_constant<int, 1>{}, n);
    }
}

// Rows that are taken together: they stay in the innermost cache, and sums over them within the number type's reach.
inline long piece_rows(int channels) { return std::clamp(8192 / channels, 16, 256); }

template <class Piece>
void over_pieces(const Norm& o, Piece piece) {
    const long step = piece_rows(o.channels), pieces = (o.rows + step - 1) / step;
#pragma omp parallel for num_threads(o.threads)
    for (long i = 0; i < pieces; ++i) piece(i * step, std::min((i + 1) * step, long(o.rows)));
}

// Two sums over pixels; piece(first, last, sums) writes sums[2][slots], they are collected in double precision.
// totals[2][channels] are what all threads found together.
template <class Piece>
void sum_over_pixels(const Norm& o, double* totals, Piece piece) {
    const int columns = slots(o.channels), width = 2 * columns;
    const long step = piece_rows(o.channels);
    std::vector<double> found(size_t(o.threads) * width, 0.0);
#pragma omp parallel num_threads(o.threads)
    {
        const int me = omp_get_thread_num(), all = omp_get_num_threads();
        Real* sums = scratch(3, width);
        for (long first = o.rows * me / all, end = o.rows * (me + 1) / all; first < end; first += step) {
            piece(first, std::min(first + step, end), sums);
            for (int i = 0; i < width; ++i) found[size_t(me) * width + i] += sums[i];
        }
    }
    for (int i = 0; i < width; ++i) {
        double total = 0;
        for (int t = 0; t < o.threads; ++t) total += found[size_t(t) * width + i];
        const int slot = i % columns / kLanes * kLanes;
        totals[i / columns * o.channels + lane_start(slot, o.channels) + i % kLanes] = total;
    }
}

// totals[0] = sum of y - y[first pixel], totals[1] = sum of its square: the shift keeps the variance exact.
inline void norm_sums(const Norm& o, double* totals) {
    const int C = o.channels;
    sum_over_pixels(o, totals, [&](long first, long last, Real* sums) {
        over_panels(C, [&](auto width, int n) {
            constexpr int V = decltype(width)::value;
            Vec shift[V], sum[V] = {}, squares[V] = {};
            int at[V];
            UNROLL for (int j = 0; j < V; ++j) shift[j] = load(o.y + (at[j] = lane_start(n + j * kLanes, C)));
            const Stored* y = o.y + first * C;
            for (long row = first; row < last; ++row, y += C)
                UNROLL for (int j = 0; j < V; ++j) {
                    const Vec v = load(y + at[j]) - shift[j];
                    sum[j] += v;
                    squares[j] += v * v;
                }
            UNROLL for (int j = 0; j < V; ++j) {
                store(sums + n + j * kLanes, sum[j]);
                store(sums + slots(C) + n + j * kLanes, squares[j]);
            }
        });
    });
}

// The batch's statistics: into `saved`, and a share of them into the running ones.
inline void norm_statistics(const Norm& o) {
    const int C = o.channels;
    const double share = o.momentum < 0 ? 1. / (*o.tracked + 1) : o.momentum;
    *o.tracked += 1;
    norm_sums(o, o.saved);
    for (int c = 0; c < C; ++c) {
        const double shifted = o.saved[c] / o.rows, mean = shifted + Real(o.y[c]);
        const double found = o.saved[C + c] / o.rows - shifted * shifted, variance = found < 0 ? 0. : found;  // keeps NaN
        const double inverse = 1 / std::sqrt(variance + o.epsilon), scale = inverse * o.weight[c];
        o.running_mean[c] += share * (mean - o.running_mean[c]);
        o.running_variance[c] += share * (variance * o.rows / (o.rows - 1) - o.running_variance[c]);
        const double numbers[] = {mean, inverse, scale, o.bias[c] - mean * scale};
        for (int i = 0; i < 4; ++i) o.saved[i * C + c] = numbers[i];
    }
}

// z = relu?((y - mean) / deviation * weight + bias + residual)
inline void norm_forward(const Norm& o) {
    const int C = o.channels;
    norm_statistics(o);
    Real* scale = scratch(4, 2 * C);
    std::copy(o.saved + 2 * C, o.saved + 4 * C, scale);
    over_pieces(o, [&](long first, long last) {
        over_panels(C, [&](auto width, int n) {
            constexpr int V = decltype(width)::value;
            Vec a[V], b[V];
            int at[V];
            UNROLL for (int j = 0; j < V; ++j) {
                at[j] = lane_start(n + j * kLanes, C);
                a[j] = load(scale + at[j]);
                b[j] = load(scale + C + at[j]);
            }
            const bool relu = o.relu;
            const Stored *y = o.y, *residual = o.residual;
            Stored* z = o.z;
            for (long to = first * C; to < last * C; to += C)
                UNROLL for (int j = 0; j < V; ++j) {
                    Vec v = load(y + to + at[j]) * a[j] + b[j];
                    if (residual) v += load(residual + to + at[j]);
                    store(z + to + at[j], relu ? positive(v) : v);
                }
        });
    });
}

// How the gradient before the ReLU is found: there was no ReLU, by the sign of z, or of z computed again from y.
enum class Mask { none, stored, computed };

// The gradient before the ReLU, of a vector's numbers from `at` on; dz is the one after it.
template <Mask mask>
inline Vec before_relu(Vec dz, const Stored* z, long at, Vec y, Vec scale, Vec shift) {
    if (mask == Mask::stored) return load(z + at) <= Real(0) ? Vec{} : dz;  // as torch: the gradient passes NaN
    if (mask == Mask::computed) return y * scale + shift <= Real(0) ? Vec{} : dz;
    return dz;
}

// totals[0] = sum of g, totals[1] = sum of g * (y - mean), with g the gradient before the ReLU; and dresidual = g.
template <Mask mask>
void norm_gradient_sums(const Norm& o, const Real* numbers, double* totals) {
    const int C = o.channels;
    sum_over_pixels(o, totals, [&](long first, long last, Real* sums) {
        over_panels(C, [&](auto width, int n) {
            constexpr int V = decltype(width)::value;
            Vec sum[V] = {}, products[V] = {};
            int at[V];
            UNROLL for (int j = 0; j < V; ++j) at[j] = lane_start(n + j * kLanes, C);
            const Stored *dz = o.dz, *z = o.z, *y = o.y;
            Stored* dresidual = o.dresidual;
            for (long from = first * C; from < last * C; from += C)
                UNROLL for (int j = 0; j < V; ++j) {
                    const Vec v = load(y + from + at[j]);
                    const Vec g = before_relu<mask>(load(dz + from + at[j]), z, from + at[j], v,
                                                    load(numbers + C + at[j]), load(numbers + 2 * C + at[j]));
                    if (dresidual) store(dresidual + from + at[j], g);
                    sum[j] += g;
                    products[j] += g * (v - load(numbers + at[j]));
                }
            UNROLL for (int j = 0; j < V; ++j) {
                store(sums + n + j * kLanes, sum[j]);
                store(sums + slots(C) + n + j * kLanes, products[j]);
            }
        });
    });
}

// dy = scale * g + slope * y + offset
template <Mask mask>
void norm_gradient(const Norm& o, const Stored* g, const Real* numbers) {
    const int C = o.channels;
    over_pieces(o, [&](long first, long last) {
        over_panels(C, [&](auto width, int n) {
            constexpr int V = decltype(width)::value;
            Vec scale[V], slope[V], offset[V];
            int at[V];
            UNROLL for (int j = 0; j < V; ++j) {
                at[j] = lane_start(n + j * kLanes, C);
                scale[j] = load(numbers + C + at[j]);
                slope[j] = load(numbers + 3 * C + at[j]);
                offset[j] = load(numbers + 4 * C + at[j]);
            }
            const Stored *z = o.z, *y = o.y;
            Stored* dy = o.dy;
            for (long to = first * C; to < last * C; to += C)
                UNROLL for (int j = 0; j < V; ++j) {
                    const Vec w = load(y + to + at[j]);
                    const Vec v = before_relu<mask>(load(g + to + at[j]), z, to + at[j], w, scale[j],
                                                    load(numbers + 2 * C + at[j]));
                    store(dy + to + at[j], scale[j] * v + slope[j] * w + offset[j]);
                }
        });
    });
}

// The gradients of norm_forward(); `dresidual` may be null. `z` is read only where there was a residual.
inline void norm_backward(const Norm& o) {
    const int C = o.channels;
    std::vector<double> totals(2 * C);
    Real* numbers = scratch(4, 5 * C);  // mean, scale, shift, slope, offset
    std::copy(o.saved, o.saved + C, numbers);
    std::copy(o.saved + 2 * C, o.saved + 4 * C, numbers + C);
    const Mask mask = !o.relu ? Mask::none : o.z ? Mask::stored : Mask::computed;
    if (mask == Mask::none) norm_gradient_sums<Mask::none>(o, numbers, totals.data());
    if (mask == Mask::stored) norm_gradient_sums<Mask::stored>(o, numbers, totals.data());
    if (mask == Mask::computed) norm_gradient_sums<Mask::computed>(o, numbers, totals.data());
    for (int c = 0; c < C; ++c) {
        const double mean = o.saved[c], inverse = o.saved[C + c], scale = o.saved[2 * C + c];
        const double for_weight = totals[C + c] * inverse, slope = -scale * inverse * for_weight / o.rows;
        o.dweight[c] = for_weight;
        o.dbias[c] = totals[c];
        numbers[3 * C + c] = slope;
        numbers[4 * C + c] = -scale * totals[c] / o.rows - slope * mean;
    }
    if (o.dresidual)
        norm_gradient<Mask::none>(o, o.dresidual, numbers);
    else if (mask == Mask::none)
        norm_gradient<Mask::none>(o, o.dz, numbers);
    else if (mask == Mask::stored)
        norm_gradient<Mask::stored>(o, o.dz, numbers);
    else
        norm_gradient<Mask::computed>(o, o.dz, numbers);
}

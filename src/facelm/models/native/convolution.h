// A convolution without or with bias, padding half its kernel, and its gradients, each by the way that suits it.
#pragma once

#include "direct.h"
#include "winograd.h"

struct Convolution {  // mirrored by native.Convolution; a kernel of 1 has stride 1, one of 3 has stride 1 or 2
    int32_t batch, height, width, inputs, outputs, kernel, stride, threads;
    Kernel step;
    const Real *x, *weight, *bias;
    Real* y;
    const Real *dy, *more;  // more: null, or what is added to dx
    Real *dx, *dweight;

    bool by_winograd() const { return kernel == 3 && stride == 1; }
    Window window() const { return {height, width, inputs, kernel, kernel, -(kernel / 2), -(kernel / 2), stride}; }
    Grid grid() const { return {(height - 1) / stride + 1, (width - 1) / stride + 1}; }
};

inline void convolution_forward(const Convolution& o) {
    const int K = o.inputs, N = o.outputs;
    Real* packed = scratch(4, size_t(o.by_winograd() ? kPoints : o.kernel * o.kernel) * K * slots(N));
    if (o.by_winograd()) {
        pack_weight(o.weight, o.step, N, K, packed, o.threads);
        winograd(o.x, packed, o.bias, nullptr, o.y, o.batch, o.height, o.width, K, N, false, o.threads);
    } else {
        const Taps taps{0, 1, o.kernel};
        pack_taps(o.weight, o.step, N, K, taps, taps, packed);
        direct(o.x, o.window(), packed, o.bias, nullptr, o.y, o.grid(), o.batch, N, false, o.threads);
    }
}

// dx of a direct convolution: the pixels of each parity are a convolution of dy of their own. An input pixel at 2i saw
// the output pixel i through tap 1; one at 2i + 1 saw i through tap 2 and i + 1 through tap 0.
inline void direct_input_gradient(const Convolution& o) {
    const Grid of = o.grid();
    const Kernel turned{o.step.input, o.step.output, o.step.row, o.step.column};
    Real* packed = scratch(4, size_t(4) * o.outputs * slots(o.inputs));
    for (int top = 0; top < o.stride; ++top)
        for (int left = 0; left < o.stride; ++left) {
            const Taps rows = top ? Taps{2, -2, 2} : Taps{o.kernel / 2, 0, 1};
            const Taps columns = left ? Taps{2, -2, 2} : Taps{o.kernel / 2, 0, 1};
            const Window window{of.height, of.width, o.outputs, rows.count, columns.count, 0, 0, 1};
            pack_taps(o.weight, turned, o.inputs, o.outputs, rows, columns, packed);
            direct(o.dy, window, packed, nullptr, o.more, o.dx, {o.height, o.width, top, left, o.stride}, o.batch,
                   o.inputs, false, o.threads);
        }
}

// dweight, and dx + more where it is not null.
inline void convolution_backward(const Convolution& o) {
    const int K = o.inputs, N = o.outputs;
    if (!o.by_winograd()) {
        if (o.dx) direct_input_gradient(o);
        direct_weight_gradient(o.x, o.window(), o.dy, o.grid(), o.dweight, o.step, o.batch, N, o.threads);
        return;
    }
    if (o.dx) {  // the convolution with inputs and outputs exchanged and the taps reversed
        Real* packed = scratch(4, size_t(kPoints) * N * slots(K));
        const Kernel turned{o.step.input, o.step.output, -o.step.row, -o.step.column};
        pack_weight(o.weight + 2 * (o.step.row + o.step.column), turned, K, N, packed, o.threads);
        winograd(o.dy, packed, nullptr, o.more, o.dx, o.batch, o.height, o.width, N, K, false, o.threads);
    }
    winograd_weight_gradient(o.x, o.dy, o.dweight, o.step, o.batch, o.height, o.width, K, N, o.threads);
}

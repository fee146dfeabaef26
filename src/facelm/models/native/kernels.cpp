// The operations of an HRNet on the CPU: an interpreter for a list of them, and convolutions with gradients.
//
// Tensors are NHWC and dense (torch's channels_last). Compiled on the machine it runs on, see __init__.py: without
// TRAINING only what predicting needs, in half the time.
#include "direct.h"
#include "enlarge.h"
#include "winograd.h"

#ifdef TRAINING
#include "convolution.h"
#endif

struct Op {  // mirrored by native.Op
    int32_t kind, batch, height, width, inputs, outputs, kernel, stride, relu, unused;
    const Real *x, *weight, *bias, *residual;
    Real* y;
};

static void run_direct(const Op& o, int threads) {
    const Window window{o.height, o.width, o.inputs, o.kernel, o.kernel, -(o.kernel / 2), -(o.kernel / 2), o.stride};
    const Grid grid{(o.height - 1) / o.stride + 1, (o.width - 1) / o.stride + 1};
    direct(o.x, window, o.weight, o.bias, o.residual, o.y, grid, o.batch, o.outputs, o.relu, threads);
}

extern "C" {

int lanes() { return kLanes; }

void run(const Op* ops, int count, int threads) {
    for (const Op* o = ops; o < ops + count; ++o) {
        if (o->kind == 0)
            winograd(o->x, o->weight, o->bias, o->residual, o->y, o->batch, o->height, o->width, o->inputs, o->outputs,
                     o->relu, threads);
        else if (o->kind == 1)
            run_direct(*o, threads);
        else
            enlarge(o->x, o->residual, o->y, o->batch, o->height, o->width, o->inputs, o->stride, o->relu, threads);
    }
}

void pack(const Real* weight, const Kernel* step, int outputs, int inputs, Real* packed, int threads) {
    pack_weight(weight, *step, outputs, inputs, packed, threads);
}

void pack_direct(const Real* weight, const Kernel* step, int outputs, int inputs, int kernel, Real* packed) {
    pack_taps(weight, *step, outputs, inputs, {0, 1, kernel}, {0, 1, kernel}, packed);
}

#ifdef TRAINING
void convolve(const Convolution* o) { convolution_forward(*o); }
void convolve_back(const Convolution* o) { convolution_backward(*o); }
#endif
}

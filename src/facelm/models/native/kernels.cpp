// The operations of an HRNet on the CPU, and an interpreter for a list of them.
//
// Tensors are NHWC and dense (torch's channels_last). Compiled on the machine it runs on, see __init__.py.
#include "norm.h"
#include "winograd.h"

struct Op {  // mirrored by native.Op
    int32_t kind, batch, height, width, inputs, outputs, kernel, stride, relu, unused;
    const Real *x, *weight, *bias, *residual;
    Real* y;
};

// The patch of every output pixel as a row: rows[count][kernel * kernel * channels].
static void gather_patches(const Op& o, int h, int w, int first, int count, Real* rows) {
    const int K = o.inputs, k = o.kernel, line = k * K;
    for (int t = first; t < first + count; ++t) {
        const int image = t / (h * w), top = t / w % h * o.stride - k / 2, left = t % w * o.stride - k / 2;
        const int from = std::max(0, -left), to = std::min(k, o.width - left);
        for (int i = 0; i < k; ++i, rows += line) {
            const bool inside = unsigned(top + i) < unsigned(o.height);
            if (!inside || from > 0 || to < k) std::fill(rows, rows + line, Real(0));
            if (!inside) continue;
            const Real* x = o.x + ((long(image) * o.height + top + i) * o.width + left) * K;
            std::copy(x + from * K, x + to * K, rows + from * K);
        }
    }
}

// y = relu?(conv(x) + bias + residual) as one matrix product; weight[panel][kernel * kernel * inputs][its columns].
static void direct(const Op& o, int threads) {
    const int K = o.inputs, N = o.outputs, columns = slots(N), depth = o.kernel * o.kernel * K;
    const int h = (o.height - 1) / o.stride + 1, w = (o.width - 1) / o.stride + 1, pixels = o.batch * h * w;
    const int fits = 32 * 1024 / int(std::max(depth, columns) * sizeof(Real)) / 4 * 4;  // of the innermost cache
    const int block = std::min({std::max(8, fits), 48, (pixels + threads - 1) / threads});
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int g = 0; g < (pixels + block - 1) / block; ++g) {
        const int first = g * block, count = std::min(block, pixels - first);
        Real* products = scratch(1, size_t(block) * columns);
        const Real* rows = o.x + size_t(first) * K;
        if (o.kernel > 1 || o.stride > 1) {
            Real* patches = scratch(0, size_t(block) * depth);
            gather_patches(o, h, w, first, count, patches);
            rows = patches;
        }
        for (int n = 0; n < columns; n += 3 * kLanes) {
            const int width = panel_width(n, columns);
            multiply_panel(rows, depth, 1, o.weight + size_t(n) * depth, width, products + n, columns, count, depth,
                           width);
        }
        for (int t = 0; t < count; ++t)
            for (int n = 0; n < columns; n += kLanes) {
                const int at = lane_start(n, N);
                const size_t to = size_t(first + t) * N + at;
                Vec v = load(products + t * columns + n);
                if (o.bias) v += load(o.bias + at);
                if (o.residual) v += load(o.residual + to);
                store(o.y + to, o.relu ? positive(v) : v);
            }
    }
}

// y = relu?(residual + x enlarged `stride` times), bilinear with align_corners=False.
static void enlarge(const Op& o, int threads) {
    const int H = o.height, W = o.width, C = o.inputs, s = o.stride;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < o.batch * H * s; ++row) {
        const Real at_y = std::max(Real(0), (row % (H * s) + Real(.5)) / s - Real(.5));
        const int y0 = int(at_y), y1 = std::min(y0 + 1, H - 1);
        const Real wy = at_y - y0;
        const Real* above = o.x + (size_t(row / (H * s)) * H + y0) * W * C;
        const Real* below = o.x + (size_t(row / (H * s)) * H + y1) * W * C;
        Real* line = scratch(2, size_t(W) * C);
        for (int q = 0; q < W * C; ++q) line[q] = above[q] + wy * (below[q] - above[q]);
        for (int j = 0; j < W * s; ++j) {
            const Real at_x = std::max(Real(0), (j + Real(.5)) / s - Real(.5));
            const int x0 = int(at_x), x1 = std::min(x0 + 1, W - 1);
            const Real wx = at_x - x0;
            for (int c = 0; c < C; c += kLanes) {
                const int at = lane_start(c, C);
                const size_t to = (size_t(row) * W * s + j) * C + at;
                const Vec left = load(line + x0 * C + at), right = load(line + x1 * C + at);
                Vec v = left + wx * (right - left);
                if (o.residual) v += load(o.residual + to);
                store(o.y + to, o.relu ? positive(v) : v);
            }
        }
    }
}

extern "C" {

int lanes() { return kLanes; }

void run(const Op* ops, int count, int threads) {
    for (const Op* o = ops; o < ops + count; ++o) {
        if (o->kind == 0)
            winograd(o->x, o->weight, o->bias, o->residual, o->y, o->batch, o->height, o->width, o->inputs, o->outputs,
                     o->relu, threads);
        else if (o->kind == 1)
            direct(*o, threads);
        else
            enlarge(*o, threads);
    }
}
void pack(const Real* weight, const Kernel* step, int outputs, int inputs, Real* packed, int threads) {
    pack_weight(weight, *step, outputs, inputs, packed, threads);
}

void conv_weight_gradient(const Real* x, const Real* dy, Real* gradient, const Kernel* step, int batch, int height,
                          int width, int inputs, int outputs, int threads) {
    winograd_weight_gradient(x, dy, gradient, *step, batch, height, width, inputs, outputs, threads);
}

void statistics(const Real* y, int64_t rows, int channels, double* totals, int threads) {
    norm_statistics(y, rows, channels, totals, threads);
}

void apply(const Real* y, const Real* scale, const Real* shift, const Real* residual, Real* z, int64_t rows,
           int channels, int relu, int threads) {
    norm_apply(y, scale, shift, residual, z, rows, channels, relu, threads);
}

void gradient_sums(const Real* dz, const Real* z, const Real* y, const Real* mean, int64_t rows, int channels,
                   double* totals, int threads) {
    norm_gradient_sums(dz, z, y, mean, rows, channels, totals, threads);
}

void gradient(const Real* dz, const Real* z, const Real* y, const Real* a, const Real* b, const Real* c, Real* dy,
              Real* dresidual, int64_t rows, int channels, int threads) {
    norm_gradient(dz, z, y, a, b, c, dy, dresidual, rows, channels, threads);
}
}

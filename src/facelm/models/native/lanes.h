// Vectors of the machine's width and the one matrix product that everything here is made of.
//
// GCC's and clang's vector extension is used throughout: the same source serves AVX2, AVX-512 and NEON.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifndef REAL
#define REAL float
#endif
using Real = REAL;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / sizeof(Real);
constexpr int kCache = 384 * 1024;  // bytes of a core's own cache that a block of work may take
typedef Real Vec __attribute__((vector_size(kBytes)));

inline Vec load(const Real* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
inline void store(Real* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// What a map's numbers are in memory. With NARROW they are bfloat16, the upper half of a float, and computed with as
// floats.
#ifdef NARROW
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));

// To the nearest, ties to even, as torch rounds; NaN stays NaN.
inline Halves narrow(Vec v) {
    const Words bits = reinterpret_cast<Words>(v), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector(v == v ? rounded : Words{} + 0x7fc0, Halves);
}
struct Stored {
    uint16_t bits;

    operator Real() const {
        const uint32_t word = uint32_t(bits) << 16;
        Real value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    }
};
inline Vec load(const Stored* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Vec>(__builtin_convertvector(halves, Words) << 16);
}
inline void store(Stored* to, Vec v) {
    const Halves halves = narrow(v);
    std::memcpy(to, &halves, sizeof halves);
}
#else
using Stored = Real;
#endif
// Numbers that lie `step` apart.
inline Vec load_steps(const Real* from, int64_t step) {
    if (step == 1) return load(from);
    Vec v;
    for (int l = 0; l < kLanes; ++l) v[l] = from[l * step];
    return v;
}
// ReLU; NaN stays NaN, as in torch: a damaged network must not look healthy.
inline Vec positive(Vec v) { return v < Real(0) ? Vec{} : v; }

// Channels are walked a vector at a time. The last vector of a pixel steps back and overlaps the one before it, so that
// no memory outside the pixel is touched and no number of channels needs padding (it must be kLanes at least).
// Products and packed weights hold these vectors side by side: `slots(channels)` numbers, the overlap twice.
inline int lane_start(int slot, int channels) { return std::min(slot, channels - kLanes); }
inline int slots(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Working memory of the calling thread, kept between calls: fresh memory would cost page faults. `which` tells several
// blocks apart: 0 and 1 for a block of pixels, 2 for a line, 3 for sums of a norm, 4 for packed numbers, 5 for sums of
// a weight's gradient; 4 and 5 are the caller's, and other threads read or write them too.
static Real* scratch(int which, size_t count) {
    static thread_local std::vector<char> blocks[6];
    std::vector<char>& block = blocks[which];
    const size_t bytes = (count + 2 * kLanes) * sizeof(Real) + 64;
    if (block.size() < bytes) block.resize(bytes);
    return reinterpret_cast<Real*>((reinterpret_cast<uintptr_t>(block.data()) + 63) & ~uintptr_t(63));
}

// Keeps a vector in a register: GCC would otherwise read it from memory again in every multiplication, and two loads
// a cycle cannot feed two multiplications a cycle.
#if defined(__x86_64__)
#define IN_REGISTER(v) asm("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif
#define UNROLL _Pragma("GCC unroll 16")

// c[R][V vectors] (+)= a[R][depth] b[depth][V vectors]; element (r, k) of a lies at a[r * row + k * step].
template <int R, int V, bool add>
inline void multiply_tile(const Real* a, long row, long step, const Real* b, long ldb, Real* c, long ldc, int depth) {
    Vec sum[R][V];
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int j = 0; j < V; ++j) sum[r][j] = add ? load(c + r * ldc + j * kLanes) : Vec{};
    for (int k = 0; k < depth; ++k, a += step, b += ldb) {
        Vec weight[V];
        UNROLL for (int j = 0; j < V; ++j) {
            weight[j] = load(b + j * kLanes);
            IN_REGISTER(weight[j]);
        }
        UNROLL for (int r = 0; r < R; ++r) {
            const Real value = a[r * row];
            UNROLL for (int j = 0; j < V; ++j) sum[r][j] += value * weight[j];
        }
    }
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int j = 0; j < V; ++j) store(c + r * ldc + j * kLanes, sum[r][j]);
}

template <int V, bool add>
void multiply_strip(const Real* a, long row, long step, const Real* b, long ldb, Real* c, long ldc, int rows,
                    int depth) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) multiply_tile<4, V, add>(a + r * row, row, step, b, ldb, c + r * ldc, ldc, depth);
    a += r * row;
    c += r * ldc;
    if (rows - r == 3) multiply_tile<3, V, add>(a, row, step, b, ldb, c, ldc, depth);
    if (rows - r == 2) multiply_tile<2, V, add>(a, row, step, b, ldb, c, ldc, depth);
    if (rows - r == 1) multiply_tile<1, V, add>(a, row, step, b, ldb, c, ldc, depth);
}

// The panel of columns that starts at `n`: three vectors wide, narrower at the end.
inline int panel_width(int n, int columns) { return std::min(3 * kLanes, columns - n); }

template <bool add>
void multiply_columns(const Real* a, long row, long step, const Real* b, long ldb, Real* c, long ldc, int rows,
                      int depth, int width) {
    if (width == 3 * kLanes) multiply_strip<3, add>(a, row, step, b, ldb, c, ldc, rows, depth);
    if (width == 2 * kLanes) multiply_strip<2, add>(a, row, step, b, ldb, c, ldc, rows, depth);
    if (width == kLanes) multiply_strip<1, add>(a, row, step, b, ldb, c, ldc, rows, depth);
}

// c = a b, or c += a b, for one panel, of `width` columns.
inline void multiply_panel(const Real* a, long row, long step, const Real* b, long ldb, Real* c, long ldc, int rows,
                           int depth, int width, bool add = false) {
    (add ? multiply_columns<true> : multiply_columns<false>)(a, row, step, b, ldb, c, ldc, rows, depth, width);
}

// A convolution's weight [outputs][inputs][row][column] in memory, of any order: what one step in each direction is.
struct Kernel {
    int64_t output, input, row, column;
};

// What training needs beside convolutions: batch norms with the sum and the ReLU after them, enlargements, and memory.
#include "enlarge.h"
#include "norm.h"

#ifdef __GLIBC__
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#endif

extern "C" {

void normalise(const Norm* o) { norm_forward(*o); }
void normalise_back(const Norm* o) { norm_backward(*o); }

void enlarge_sum(const Stored* x, const Stored* residual, Stored* y, int batch, int height, int width, int channels,
                 int scale, int relu, int threads) {
    enlarge(x, residual, y, batch, height, width, channels, scale, relu, threads);
}

void enlarge_back(const Stored* dy, Stored* dx, int batch, int height, int width, int channels, int scale, int threads) {
    enlarge_gradient(dy, dx, batch, height, width, channels, scale, threads);
}

// Tells malloc to keep what is freed: a training step asks for the same large blocks again, and the system would have
// to clear every page of them again. They lie in large pages where the system has them, in a range reserved here: half
// of the machine's memory, of which nothing is taken before it is used. Returns whether it could.
int keep_memory() {
#if defined(__GLIBC__)
    if (!mallopt(M_MMAP_MAX, 0) || !mallopt(M_TRIM_THRESHOLD, -1)) return 0;
    const size_t bytes = size_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 2;
    if (void* range = malloc(bytes)) {
        const uintptr_t huge = 2 << 20, start = (reinterpret_cast<uintptr_t>(range) + huge - 1) / huge * huge;
        madvise(reinterpret_cast<void*>(start), bytes - huge, MADV_HUGEPAGE);
        free(range);
    }
    return 1;
#else
    return 0;
#endif
}
}

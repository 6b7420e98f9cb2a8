// The fastest plain loop we know for what a lookup of one id per bag does: copy rows
// in the order of their ids. The ceiling that `embeddings.py` holds lookups against.

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kLine = 16;  // floats

template <int kDim>
void CopyRows(const float* rows, const int32_t* ids, int64_t first, int64_t last,
              int64_t distance, float* out) {
  for (int64_t i = first; i < last; ++i) {
    if (distance > 0 && i + distance < last) {
      const float* next = rows + int64_t{ids[i + distance]} * kDim;
      for (int j = 0; j < kDim; j += kLine) __builtin_prefetch(next + j);
    }
    std::memcpy(out + i * kDim, rows + int64_t{ids[i]} * kDim, kDim * sizeof(float));
  }
}

}  // namespace

extern "C" {

// Floats in huge pages where the system has them; null without memory.
float* ceiling_allocate(int64_t count) {
  const size_t bytes = count * sizeof(float) + kHugePage;
  void* pages =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  const uintptr_t start = (reinterpret_cast<uintptr_t>(pages) + kHugePage - 1) &
                          ~(uintptr_t{kHugePage} - 1);
  madvise(reinterpret_cast<void*>(start), count * sizeof(float), MADV_HUGEPAGE);
  return reinterpret_cast<float*>(start);
}

// Gives back what `ceiling_allocate` gave; it keeps the rest of one huge page.
void ceiling_release(float* pages, int64_t count) {
  munmap(pages, count * sizeof(float));
}

// out[i] = rows[ids[i]] for rows of 64 floats; `distance` is that of the prefetches, 0
// for none.
void ceiling_gather(const float* rows, const int32_t* ids, int64_t count,
                    int64_t distance, int threads, float* out) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) {
    others.emplace_back(CopyRows<64>, rows, ids, count * t / threads,
                        count * (t + 1) / threads, distance, out);
  }
  CopyRows<64>(rows, ids, 0, count / threads, distance, out);
  for (std::thread& other : others) other.join();
}

}  // extern "C"

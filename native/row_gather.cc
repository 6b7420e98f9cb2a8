#include "row_gather.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "parallel.h"

namespace shortlist {
namespace {

// Rows a thread takes at a time: their places and results stay in the second level
// cache.
constexpr std::size_t kRowsAtOnce = 8192;
// Rows whose places are kept at a time, in memory that the next gather of the thread
// uses again: fresh memory costs as much as what is done with it.
constexpr std::size_t kPlacesAtOnce = 1 << 18;
// Rows between asking for a line of memory and using it.
constexpr std::size_t kAhead = 256;
// Values gathered that are worth starting a thread for.
constexpr std::size_t kWorkPerThread = 1 << 15;

struct Place {
  std::uint32_t chunk;
  std::uint32_t row;  // within the chunk
};

struct Float16 {
  std::uint16_t bits;
};

template <typename Value>
Value load(const char* from) {
  Value value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Into the second level cache: twice as many lines can be on their way there as to the
// first, which halves the time of a gather from memory.
inline void prefetch(const char* address) { __builtin_prefetch(address, 0, 2); }

template <typename Wide, typename Value>
Wide widen(Value value) {
  return static_cast<Wide>(value);
}

// Exact: every float16 is a float32.
template <>
float widen<float, Float16>(Float16 value) {
  const std::uint32_t sign = (value.bits & 0x8000u) << 16;
  const std::uint32_t rest = value.bits & 0x7FFFu;
  std::uint32_t bits;
  if (rest < 0x0400u) {
    // Below 2^-14 a float16 is a multiple of 2^-24, and its bits are that multiple.
    const float small = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&bits, &small, sizeof(bits));
  } else {
    bits = (rest << 13) + ((rest >= 0x7C00u ? 255u - 31u : 127u - 15u) << 23);
  }
  bits |= sign;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

template <typename Wide>
constexpr Wide padding() {
  return std::is_floating_point<Wide>::value ? Wide{0} : static_cast<Wide>(-1);
}

// Fills `n` rows of a column from `out` on.
using Kernel = void (*)(const GatheredColumn& column, const Place* places,
                        std::size_t n, char* out);

template <typename Value, typename Wide, bool kOneChunk>
void gather_scalars(const GatheredColumn& column, const Place* places, std::size_t n,
                    char* out) {
  const ColumnChunk* const chunks = column.chunks.data();
  const char* const first = chunks[places[0].chunk].values;
  const auto address = [=](std::size_t i) {
    const char* values = kOneChunk ? first : chunks[places[i].chunk].values;
    return values + std::size_t{places[i].row} * sizeof(Value);
  };
  auto* wide = reinterpret_cast<Wide*>(out);
  const std::size_t ahead = std::min(n, kAhead);
  for (std::size_t k = 0; k < ahead; ++k) prefetch(address(k));
  std::size_t i = 0;
  for (; i + ahead < n; ++i) {
    prefetch(address(i + ahead));
    wide[i] = widen<Wide>(load<Value>(address(i)));
  }
  for (; i < n; ++i) wide[i] = widen<Wide>(load<Value>(address(i)));
}

template <typename Value, typename Wide>
void gather_lists(const GatheredColumn& column, const Place* places, std::size_t n,
                  char* out) {
  const ColumnChunk* const chunks = column.chunks.data();
  const std::size_t width = column.width;
  const std::size_t bytes = width * sizeof(Value);
  const auto address = [=](std::size_t i) {
    return chunks[places[i].chunk].values + places[i].row * bytes;
  };
  auto* wide = reinterpret_cast<Wide*>(out);
  for (std::size_t i = 0; i < n; ++i, wide += width) {
    if (i + kAhead < n) {
      const char* const next = address(i + kAhead);
      for (std::size_t byte = 0; byte < bytes; byte += 64) {
        prefetch(next + byte);
      }
      prefetch(next + bytes - 1);
    }
    const char* const values = address(i);
    for (std::size_t k = 0; k < width; ++k) {
      wide[k] = widen<Wide>(load<Value>(values + k * sizeof(Value)));
    }
  }
}

const char* offset_of(const ColumnChunk& chunk, std::size_t row) {
  return chunk.offsets + row * (chunk.wide_offsets ? 8 : 4);
}

std::size_t offset_at(const ColumnChunk& chunk, std::size_t row) {
  const char* const from = offset_of(chunk, row);
  return chunk.wide_offsets ? static_cast<std::size_t>(load<std::int64_t>(from))
                            : static_cast<std::size_t>(load<std::int32_t>(from));
}

template <typename Value, typename Wide>
void gather_ragged(const GatheredColumn& column, const Place* places, std::size_t n,
                   char* out) {
  const ColumnChunk* const chunks = column.chunks.data();
  const std::size_t width = column.width;
  auto* wide = reinterpret_cast<Wide*>(out);
  for (std::size_t i = 0; i < n; ++i, wide += width) {
    if (i + 2 * kAhead < n) {
      const Place far = places[i + 2 * kAhead];
      prefetch(offset_of(chunks[far.chunk], far.row));
    }
    if (i + kAhead < n) {
      const Place near = places[i + kAhead];
      const ColumnChunk& chunk = chunks[near.chunk];
      prefetch(chunk.values + offset_at(chunk, near.row) * sizeof(Value));
    }
    const ColumnChunk& chunk = chunks[places[i].chunk];
    const std::size_t begin = offset_at(chunk, places[i].row);
    const std::size_t end = offset_at(chunk, std::size_t{places[i].row} + 1);
    if (begin > end || end > chunk.num_values) {
      throw std::out_of_range("The offsets of a list must rise within its values.");
    }
    const std::size_t length = std::min(end - begin, width);
    const char* const values = chunk.values + begin * sizeof(Value);
    for (std::size_t k = 0; k < length; ++k) {
      wide[k] = widen<Wide>(load<Value>(values + k * sizeof(Value)));
    }
    std::fill(wide + length, wide + width, padding<Wide>());
  }
}

template <typename Value, typename Wide>
Kernel kernel_of(const GatheredColumn& column, bool one_chunk) {
  if (column.chunks[0].offsets != nullptr) return &gather_ragged<Value, Wide>;
  if (column.width != 1) return &gather_lists<Value, Wide>;
  return one_chunk ? &gather_scalars<Value, Wide, true>
                   : &gather_scalars<Value, Wide, false>;
}

template <typename Value>
Kernel integer_kernel(const GatheredColumn& column, bool one_chunk) {
  return column.type == WideType::kInt64
             ? kernel_of<Value, std::int64_t>(column, one_chunk)
             : kernel_of<Value, std::int32_t>(column, one_chunk);
}

// The kernel of a column whose chunks are of type `stored`.
Kernel kernel_for(StoredType stored, const GatheredColumn& column, bool one_chunk) {
  switch (stored) {
    case StoredType::kUint8:
      return integer_kernel<std::uint8_t>(column, one_chunk);
    case StoredType::kInt8:
      return integer_kernel<std::int8_t>(column, one_chunk);
    case StoredType::kUint16:
      return integer_kernel<std::uint16_t>(column, one_chunk);
    case StoredType::kInt16:
      return integer_kernel<std::int16_t>(column, one_chunk);
    case StoredType::kUint32:
      return kernel_of<std::uint32_t, std::int64_t>(column, one_chunk);
    case StoredType::kInt32:
      return integer_kernel<std::int32_t>(column, one_chunk);
    case StoredType::kInt64:
      return kernel_of<std::int64_t, std::int64_t>(column, one_chunk);
    case StoredType::kFloat16:
      return kernel_of<Float16, float>(column, one_chunk);
    case StoredType::kFloat32:
      return kernel_of<float, float>(column, one_chunk);
    case StoredType::kFloat64:
      break;
  }
  return kernel_of<double, float>(column, one_chunk);
}

// A column whose chunks differ in type goes row by row.
void gather_mixed(const GatheredColumn& column, const Place* places, std::size_t n,
                  char* out) {
  Kernel kernels[kStoredTypes] = {};
  for (const ColumnChunk& chunk : column.chunks) {
    kernels[static_cast<std::size_t>(chunk.type)] =
        kernel_for(chunk.type, column, true);
  }
  const std::size_t row_bytes = column.width * size_of(column.type);
  for (std::size_t i = 0; i < n; ++i) {
    if (i + kAhead < n) {
      const Place next = places[i + kAhead];
      const ColumnChunk& chunk = column.chunks[next.chunk];
      const std::size_t bytes = next.row * column.width * size_of(chunk.type);
      prefetch(chunk.offsets != nullptr ? offset_of(chunk, next.row)
                                        : chunk.values + bytes);
    }
    const auto type = static_cast<std::size_t>(column.chunks[places[i].chunk].type);
    kernels[type](column, places + i, 1, out + i * row_bytes);
  }
}

// `one_chunk`: for rows that are all of one chunk.
Kernel kernel_for(const GatheredColumn& column, bool one_chunk) {
  const StoredType first = column.chunks[0].type;
  for (const ColumnChunk& chunk : column.chunks) {
    if (chunk.type != first) return &gather_mixed;
  }
  return kernel_for(first, column, one_chunk);
}

// Branchless, so that the searches of many rows overlap.
std::uint32_t chunk_of(const std::int64_t* starts, std::size_t num_chunks,
                       std::int64_t row) {
  const std::int64_t* first = starts;
  for (std::size_t left = num_chunks; left > 1;) {
    const std::size_t half = left / 2;
    first = first[half] <= row ? first + half : first;
    left -= half;
  }
  return static_cast<std::uint32_t>(first - starts);
}

void find_places(const std::int64_t* rows, std::size_t num_rows,
                 const std::int64_t* starts, std::size_t num_chunks, Place* places) {
  // A row is out of range if it, or the last one less it, is negative.
  const std::int64_t last = starts[num_chunks] - 1;
  std::int64_t outside = 0;
  for (std::size_t i = 0; i < num_rows; ++i) {
    outside |= rows[i] | (last - std::max<std::int64_t>(rows[i], 0));
    const std::uint32_t chunk = chunk_of(starts, num_chunks, rows[i]);
    places[i] = {chunk, static_cast<std::uint32_t>(rows[i] - starts[chunk])};
  }
  if (outside < 0) {
    throw std::out_of_range("A row must lie in one of the chunks.");
  }
}

Place* place_memory(std::size_t num_rows) {
  thread_local std::vector<Place> memory;
  if (memory.size() < num_rows) memory.resize(num_rows);
  return memory.data();
}

bool in_one_chunk(const Place* places, std::size_t n) {
  std::uint32_t others = 0;
  for (std::size_t i = 1; i < n; ++i) others |= places[i].chunk ^ places[0].chunk;
  return others == 0;
}

}  // namespace

std::size_t size_of(WideType type) { return type == WideType::kInt64 ? 8 : 4; }

std::size_t size_of(StoredType type) {
  constexpr std::size_t kSizes[kStoredTypes] = {1, 1, 2, 2, 4, 4, 8, 2, 4, 8};
  return kSizes[static_cast<std::size_t>(type)];
}

void gather_rows(const std::int64_t* rows, std::size_t num_rows,
                 const std::int64_t* starts, std::size_t num_chunks,
                 const std::vector<GatheredColumn>& columns, std::size_t threads) {
  std::vector<Kernel> kernels;
  std::vector<Kernel> kernels_of_one;
  std::size_t width = 0;
  for (const GatheredColumn& column : columns) {
    kernels.push_back(kernel_for(column, false));
    kernels_of_one.push_back(kernel_for(column, true));
    width += column.width;
  }
  Place* const places = place_memory(std::min(num_rows, kPlacesAtOnce));
  for (std::size_t first = 0; first < num_rows; first += kPlacesAtOnce) {
    const std::size_t count = std::min(kPlacesAtOnce, num_rows - first);
    find_places(rows + first, count, starts, num_chunks, places);
    // All rows of one column before the next one: rows that lie near each other, as in
    // a windowed shuffle, find their lines in the cache.
    const std::size_t blocks = (count + kRowsAtOnce - 1) / kRowsAtOnce;
    std::vector<char> is_one(blocks);
    for (std::size_t block = 0; block < blocks; ++block) {
      const std::size_t begin = block * kRowsAtOnce;
      is_one[block] =
          in_one_chunk(places + begin, std::min(kRowsAtOnce, count - begin));
    }
    const std::size_t enough = std::max<std::size_t>(count * width / kWorkPerThread, 1);
    run_tasks(
        columns.size() * blocks, std::min(enough, threads), [&](std::size_t task) {
          const std::size_t number = task / blocks;
          const std::size_t block = task % blocks;
          const GatheredColumn& column = columns[number];
          const std::size_t begin = block * kRowsAtOnce;
          const std::size_t n = std::min(kRowsAtOnce, count - begin);
          const std::size_t row_bytes = column.width * size_of(column.type);
          const Kernel kernel =
              is_one[block] ? kernels_of_one[number] : kernels[number];
          kernel(column, places + begin, n, column.out + (first + begin) * row_bytes);
        });
  }
}

}  // namespace shortlist

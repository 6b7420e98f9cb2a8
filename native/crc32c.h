// CRC-32C (Castagnoli), the checksum of TFRecord. Knows bytes, not files.
#ifndef SHORTLIST_CRC32C_H_
#define SHORTLIST_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace shortlist {

// By the processor's own instruction (SSE 4.2) where there is one.
std::uint32_t crc32c(const std::uint8_t* data, std::size_t size);

// Eight bytes a step through tables (slicing-by-8: Kounavis and Berry, 2005).
std::uint32_t crc32c_portable(const std::uint8_t* data, std::size_t size);

// As TFRecord stores it, so that a checksum of checksums means something.
inline std::uint32_t masked(std::uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

// The file's numbers are little-endian, whatever the processor.
inline std::uint32_t load_u32(const std::uint8_t* p) {
  return std::uint32_t{p[0]} | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16 |
         std::uint32_t{p[3]} << 24;
}

inline std::uint64_t load_u64(const std::uint8_t* p) {
  return load_u32(p) | std::uint64_t{load_u32(p + 4)} << 32;
}

}  // namespace shortlist

#endif  // SHORTLIST_CRC32C_H_

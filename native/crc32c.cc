#include "crc32c.h"

#include <array>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHORTLIST_X86 1
#include <immintrin.h>
#endif

namespace shortlist {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the checksum of byte b with k zero bytes after it.
Tables make_tables() {
  Tables tables = {};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[k - 1][byte];
      tables[k][byte] = before >> 8 ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

#ifdef SHORTLIST_X86
__attribute__((target("sse4.2"))) std::uint32_t crc32c_sse42(const std::uint8_t* data,
                                                             std::size_t size) {
  std::uint64_t crc = 0xFFFFFFFFu;
  for (; size >= 8; data += 8, size -= 8) crc = _mm_crc32_u64(crc, load_u64(data));
  auto last = static_cast<std::uint32_t>(crc);
  for (; size > 0; ++data, --size) last = _mm_crc32_u8(last, *data);
  return ~last;
}
#endif

using Checksum = std::uint32_t (*)(const std::uint8_t*, std::size_t);

Checksum best_checksum() {
#ifdef SHORTLIST_X86
  if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42;
#endif
  return crc32c_portable;
}

}  // namespace

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size) {
  static const Checksum checksum = best_checksum();
  return checksum(data, size);
}

std::uint32_t crc32c_portable(const std::uint8_t* data, std::size_t size) {
  static const Tables tables = make_tables();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (; size >= 8; data += 8, size -= 8) {
    const std::uint32_t low = crc ^ load_u32(data);
    const std::uint32_t high = load_u32(data + 4);
    crc = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^
          tables[5][low >> 16 & 0xFF] ^ tables[4][low >> 24] ^ tables[3][high & 0xFF] ^
          tables[2][high >> 8 & 0xFF] ^ tables[1][high >> 16 & 0xFF] ^
          tables[0][high >> 24];
  }
  for (; size > 0; ++data, --size) crc = crc >> 8 ^ tables[0][(crc ^ *data) & 0xFF];
  return ~crc;
}

}  // namespace shortlist

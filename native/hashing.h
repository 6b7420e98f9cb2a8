// XXH64 of bytes: a 64-bit hash that is the same on every machine (Collet, "xxHash fast
// digest algorithm", 2012). Not for secrets.
#ifndef SHORTLIST_HASHING_H_
#define SHORTLIST_HASHING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "arrow_columns.h"

namespace shortlist {

std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t seed);

// Fills hashes (column.size) with those of the texts, or of the numbers as decimal
// text; 0 where there is none.
void hash_column(const TextColumn& column, std::uint64_t seed, std::uint64_t* hashes);
void hash_column(const IntColumn& column, std::uint64_t seed, std::uint64_t* hashes);

// The hash of bytes that come in pieces.
class StreamHash {
 public:
  explicit StreamHash(std::uint64_t seed);

  void update(std::string_view piece);
  std::uint64_t digest() const;

 private:
  std::array<std::uint64_t, 4> lanes_;
  std::array<char, 32> held_ = {};  // bytes that do not fill a stripe yet
  std::size_t num_held_ = 0;
  std::uint64_t num_bytes_ = 0;
  std::uint64_t seed_;
};

}  // namespace shortlist

#endif  // SHORTLIST_HASHING_H_

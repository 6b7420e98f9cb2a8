#include "hashing.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace shortlist {
namespace {

constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5;
constexpr std::size_t kStripe = 32;

using Lanes = std::array<std::uint64_t, 4>;

std::uint64_t rotate(std::uint64_t value, unsigned bits) {
  return value << bits | value >> (64 - bits);
}

// Compilers make one load of this where the machine is little-endian.
template <unsigned size>
std::uint64_t read(const char* bytes) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

std::uint64_t round(std::uint64_t lane, std::uint64_t word) {
  return rotate(lane + word * kPrime2, 31) * kPrime1;
}

Lanes start(std::uint64_t seed) {
  return {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
}

// Takes in all whole stripes; returns how many bytes these were.
std::size_t take_stripes(Lanes& lanes, std::string_view bytes) {
  std::size_t i = 0;
  for (; i + kStripe <= bytes.size(); i += kStripe) {
    const char* at = bytes.data() + i;
    for (std::size_t l = 0; l < 4; ++l) lanes[l] = round(lanes[l], read<8>(at + 8 * l));
  }
  return i;
}

std::uint64_t merge(const Lanes& lanes) {
  std::uint64_t hash = rotate(lanes[0], 1) + rotate(lanes[1], 7) +
                       rotate(lanes[2], 12) + rotate(lanes[3], 18);
  for (const std::uint64_t lane : lanes) {
    hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  return hash;
}

// Takes in the last bytes, fewer than a stripe, and mixes.
std::uint64_t finish(std::uint64_t hash, std::string_view tail) {
  const char* at = tail.data();
  const char* const end = at + tail.size();
  for (; end - at >= 8; at += 8) {
    hash = rotate(hash ^ round(0, read<8>(at)), 27) * kPrime1 + kPrime4;
  }
  if (end - at >= 4) {
    hash = rotate(hash ^ read<4>(at) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at < end; ++at) hash = rotate(hash ^ read<1>(at) * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace

std::uint64_t hash_bytes(std::string_view bytes, std::uint64_t seed) {
  if (bytes.size() < kStripe) return finish(seed + kPrime5 + bytes.size(), bytes);
  Lanes lanes = start(seed);
  const std::size_t taken = take_stripes(lanes, bytes);
  return finish(merge(lanes) + bytes.size(), bytes.substr(taken));
}

void hash_column(const TextColumn& column, std::uint64_t seed, std::uint64_t* hashes) {
  for (std::size_t i = 0; i < column.size; ++i) {
    hashes[i] = column.is_valid(i) ? hash_bytes(column.text(i), seed) : 0;
  }
}

void hash_column(const IntColumn& column, std::uint64_t seed, std::uint64_t* hashes) {
  char digits[20];  // of -2^63
  for (std::size_t i = 0; i < column.size; ++i) {
    if (!column.is_valid(i)) {
      hashes[i] = 0;
      continue;
    }
    const auto end = std::to_chars(digits, digits + sizeof digits, column.values[i]);
    hashes[i] = hash_bytes({digits, static_cast<std::size_t>(end.ptr - digits)}, seed);
  }
}

StreamHash::StreamHash(std::uint64_t seed) : lanes_(start(seed)), seed_(seed) {}

void StreamHash::update(std::string_view piece) {
  num_bytes_ += piece.size();
  if (num_held_ > 0) {
    const std::size_t missing = std::min(kStripe - num_held_, piece.size());
    std::copy_n(piece.data(), missing, held_.data() + num_held_);
    num_held_ += missing;
    piece.remove_prefix(missing);
    if (num_held_ < kStripe) return;
    take_stripes(lanes_, {held_.data(), kStripe});
  }
  piece.remove_prefix(take_stripes(lanes_, piece));
  num_held_ = piece.size();
  std::copy_n(piece.data(), num_held_, held_.data());
}

std::uint64_t StreamHash::digest() const {
  const std::uint64_t hash = num_bytes_ < kStripe ? seed_ + kPrime5 : merge(lanes_);
  return finish(hash + num_bytes_, {held_.data(), num_held_});
}

}  // namespace shortlist

// A map from ids to codes 0, 1, ... in the order in which the ids first appear.
//
// Knows whole numbers and texts; knows nothing of what they identify. Open addressing
// with linear probing (Knuth 1973, volume 3, section 6.4). A batch goes through in
// windows: the memory of all its ids is prefetched before the first one is compared.
#ifndef SHORTLIST_ID_MAP_H_
#define SHORTLIST_ID_MAP_H_

#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <string_view>
#include <vector>

#include "arrow_columns.h"

namespace shortlist {

// The ids of a map, by code: whole numbers.
class IntIds {
 public:
  using Column = IntColumn;
  using Id = std::int64_t;

  static Id id(const Column& column, std::size_t i) { return column.values[i]; }
  static std::uint32_t hash(Id id);
  bool holds(std::size_t code, Id id) const { return ids_[code] == id; }
  const void* address(std::size_t code) const { return ids_.data() + code; }
  void append(Id id) { ids_.push_back(id); }
  std::size_t size() const { return ids_.size(); }

  // Fills ids (count), the first `count` of them.
  void copy(std::size_t count, std::int64_t* ids) const;

 private:
  std::vector<std::int64_t> ids_;
};

// The ids of a map, by code: texts.
class TextIds {
 public:
  using Column = TextColumn;
  struct Id {
    TextView view;  // `rest` means something only if it is inline
    std::string_view text;
  };

  static Id id(const Column& column, std::size_t i) {
    return {column.views[i], column.text(i)};
  }
  static Id id(std::string_view text);
  static std::uint32_t hash(const Id& id);
  bool holds(std::size_t code, const Id& id) const;
  const void* address(std::size_t code) const { return views_.data() + code; }
  void append(const Id& id);
  std::size_t size() const { return views_.size(); }

  // Fills offsets (count + 1) and bytes (num_bytes(count)) with the first `count`
  // texts.
  std::size_t num_bytes(std::size_t count) const;
  void copy(std::size_t count, std::int64_t* offsets, char* bytes) const;

 private:
  std::string_view text(const TextView& view) const;

  std::vector<TextView> views_;  // `rest` of those not inline is a place in arena_
  std::vector<char> arena_;
};

// Any number of threads may look up while one adds; they wait for each other.
template <typename Ids>
class IdMap {
 public:
  using Column = typename Ids::Column;
  using Id = typename Ids::Id;

  // Holds up to `most` ids, at most 2^31 - 1.
  explicit IdMap(std::size_t most) : most_(most), slots_(kFirstSlots, 0) {}

  // Fill codes (column.size); -1 where there is no value. New ids get the next codes;
  // find() gives them -1. Throws std::length_error at the first id too many, which
  // leaves those before it in the map.
  void add(const Column& column, std::int32_t* codes);
  void find(const Column& column, std::int32_t* codes) const;

  std::int32_t find_one(const Id& id) const;
  std::size_t size() const;

  // Calls read(ids) while nothing is added.
  template <typename Read>
  auto read(const Read& read) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    return read(ids_);
  }

 private:
  static constexpr std::size_t kFirstSlots = 64;

  std::int32_t search(const Id& id, std::uint32_t hash) const;
  std::int32_t search_or_add(const Id& id, std::uint32_t hash);
  void grow();

  std::size_t most_;
  Ids ids_;
  std::vector<std::uint64_t> slots_;  // hash << 32 | 1 + code, or 0: nothing here
  mutable std::shared_mutex mutex_;
};

extern template class IdMap<IntIds>;
extern template class IdMap<TextIds>;

}  // namespace shortlist

#endif  // SHORTLIST_ID_MAP_H_

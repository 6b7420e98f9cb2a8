#include "id_map.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "hashing.h"

namespace shortlist {
namespace {

// Ids on their way at once: more than a processor has loads in flight.
constexpr std::size_t kWindow = 32;

// The finalizer of MurmurHash3 (Appleby 2011) with the constants of Stafford (2011).
std::uint32_t mix(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
  value = (value ^ value >> 27) * 0x94D049BB133111EB;
  return static_cast<std::uint32_t>(value >> 32);
}

void prefetch(const void* address) { __builtin_prefetch(address); }

std::uint32_t hash_of(std::uint64_t slot) {
  return static_cast<std::uint32_t>(slot >> 32);
}

std::size_t code_of(std::uint64_t slot) {
  return static_cast<std::uint32_t>(slot) - std::size_t{1};
}

// Fills codes with resolve(id, hash) for every value of a column.
template <typename Ids, typename Resolve>
void for_windows(const typename Ids::Column& column, const Ids& ids,
                 const std::vector<std::uint64_t>& slots, std::int32_t* codes,
                 const Resolve& resolve) {
  typename Ids::Id window[kWindow];
  std::uint32_t hashes[kWindow];
  std::uint32_t places[kWindow];
  for (std::size_t begin = 0; begin < column.size; begin += kWindow) {
    const std::size_t end = std::min(begin + kWindow, column.size);
    std::size_t count = 0;
    for (std::size_t i = begin; i < end; ++i) {
      codes[i] = -1;
      if (!column.is_valid(i)) continue;
      window[count] = Ids::id(column, i);
      hashes[count] = Ids::hash(window[count]);
      places[count] = static_cast<std::uint32_t>(i - begin);
      prefetch(slots.data() + (hashes[count] & (slots.size() - 1)));
      ++count;
    }
    for (std::size_t w = 0; w < count; ++w) {
      const std::uint64_t slot = slots[hashes[w] & (slots.size() - 1)];
      if (slot != 0) prefetch(ids.address(code_of(slot)));
    }
    for (std::size_t w = 0; w < count; ++w) {
      codes[begin + places[w]] = resolve(window[w], hashes[w]);
    }
  }
}

}  // namespace

std::uint32_t IntIds::hash(Id id) { return mix(static_cast<std::uint64_t>(id)); }

void IntIds::copy(std::size_t count, std::int64_t* ids) const {
  std::copy_n(ids_.begin(), count, ids);
}

TextIds::Id TextIds::id(std::string_view text) {
  Id id = {{static_cast<std::uint32_t>(text.size()), 0, 0}, text};
  char inline_bytes[TextView::kMaxInline] = {};
  std::copy_n(text.data(), std::min(text.size(), sizeof inline_bytes), inline_bytes);
  std::memcpy(&id.view.head, inline_bytes, 4);
  std::memcpy(&id.view.rest, inline_bytes + 4, 8);
  return id;
}

std::uint32_t TextIds::hash(const Id& id) {
  const TextView& view = id.view;
  if (!view.is_inline()) return static_cast<std::uint32_t>(hash_bytes(id.text, 0));
  // Of one length, different texts give different sums.
  const std::uint64_t start = std::uint64_t{view.head} << 32 | view.length;
  return mix((start ^ start >> 29) * 0x9E3779B97F4A7C15 + view.rest);
}

bool TextIds::holds(std::size_t code, const Id& id) const {
  const TextView& view = views_[code];
  if (view.length != id.view.length || view.head != id.view.head) return false;
  if (view.is_inline()) return view.rest == id.view.rest;
  return std::memcmp(arena_.data() + view.rest, id.text.data(), view.length) == 0;
}

void TextIds::append(const Id& id) {
  TextView view = id.view;
  if (!view.is_inline()) {
    view.rest = arena_.size();
    arena_.insert(arena_.end(), id.text.begin(), id.text.end());
  }
  views_.push_back(view);
}

std::string_view TextIds::text(const TextView& view) const {
  if (view.is_inline()) return {view.inline_bytes(), view.length};
  return {arena_.data() + view.rest, view.length};
}

std::size_t TextIds::num_bytes(std::size_t count) const {
  std::size_t sum = 0;
  for (std::size_t code = 0; code < count; ++code) sum += views_[code].length;
  return sum;
}

void TextIds::copy(std::size_t count, std::int64_t* offsets, char* bytes) const {
  std::int64_t next = 0;
  for (std::size_t code = 0; code < count; ++code) {
    const std::string_view from = text(views_[code]);
    offsets[code] = next;
    std::copy(from.begin(), from.end(), bytes + next);
    next += static_cast<std::int64_t>(from.size());
  }
  offsets[count] = next;
}

template <typename Ids>
std::int32_t IdMap<Ids>::search(const Id& id, std::uint32_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const std::uint64_t slot = slots_[at];
    if (slot == 0) return -1;
    if (hash_of(slot) == hash && ids_.holds(code_of(slot), id)) {
      return static_cast<std::int32_t>(code_of(slot));
    }
  }
}

template <typename Ids>
std::int32_t IdMap<Ids>::search_or_add(const Id& id, std::uint32_t hash) {
  const std::int32_t known = search(id, hash);
  if (known >= 0) return known;
  if (ids_.size() == most_) throw std::length_error("too many ids");
  // Two thirds full at most: longer, and so do the ways to a free slot.
  if (3 * (ids_.size() + 1) > 2 * slots_.size()) grow();
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  while (slots_[at] != 0) at = (at + 1) & mask;
  const std::size_t code = ids_.size();
  ids_.append(id);
  slots_[at] = std::uint64_t{hash} << 32 | (code + 1);
  return static_cast<std::int32_t>(code);
}

template <typename Ids>
void IdMap<Ids>::grow() {
  std::vector<std::uint64_t> slots(2 * slots_.size(), 0);
  const std::size_t mask = slots.size() - 1;
  for (const std::uint64_t slot : slots_) {
    if (slot == 0) continue;
    std::size_t at = hash_of(slot) & mask;
    while (slots[at] != 0) at = (at + 1) & mask;
    slots[at] = slot;
  }
  slots_.swap(slots);
}

template <typename Ids>
void IdMap<Ids>::add(const Column& column, std::int32_t* codes) {
  std::unique_lock<std::shared_mutex> lock(mutex_);
  for_windows<Ids>(
      column, ids_, slots_, codes,
      [this](const Id& id, std::uint32_t hash) { return search_or_add(id, hash); });
}

template <typename Ids>
void IdMap<Ids>::find(const Column& column, std::int32_t* codes) const {
  std::shared_lock<std::shared_mutex> lock(mutex_);
  for_windows<Ids>(
      column, ids_, slots_, codes,
      [this](const Id& id, std::uint32_t hash) { return search(id, hash); });
}

template <typename Ids>
std::int32_t IdMap<Ids>::find_one(const Id& id) const {
  std::shared_lock<std::shared_mutex> lock(mutex_);
  return search(id, Ids::hash(id));
}

template <typename Ids>
std::size_t IdMap<Ids>::size() const {
  std::shared_lock<std::shared_mutex> lock(mutex_);
  return ids_.size();
}

template class IdMap<IntIds>;
template class IdMap<TextIds>;

}  // namespace shortlist

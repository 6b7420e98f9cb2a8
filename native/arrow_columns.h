// Columns in the memory layout of Apache Arrow, read in place. Knows nothing of what
// they mean.
#ifndef SHORTLIST_ARROW_COLUMNS_H_
#define SHORTLIST_ARROW_COLUMNS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string_view>

namespace shortlist {

// Which values are there: one bit each, least significant first; all if bits is null.
struct Validity {
  const std::uint8_t* bits;
  std::size_t offset;

  bool operator()(std::size_t i) const {
    return bits == nullptr || (bits[(offset + i) >> 3] >> ((offset + i) & 7) & 1) != 0;
  }
};

struct IntColumn {
  const std::int64_t* values;
  std::size_t size;
  Validity is_valid;
};

// One text in Arrow's "string view" layout.
struct TextView {
  static constexpr std::uint32_t kMaxInline = 12;

  std::uint32_t length;
  std::uint32_t head;  // the first 4 bytes
  std::uint64_t rest;  // the other 8 of a text of up to 12, padded with zeros, or:
                       // which buffer (4 bytes) and where in it (4 bytes)

  bool is_inline() const { return length <= kMaxInline; }
  const char* inline_bytes() const { return reinterpret_cast<const char*>(this) + 4; }
};
static_assert(sizeof(TextView) == 16, "as laid out by Arrow");

struct TextBuffer {
  const char* data;
  std::size_t size;
};

struct TextColumn {
  const TextView* views;
  std::size_t size;
  Validity is_valid;
  const TextBuffer* buffers;
  std::size_t num_buffers;

  // The bytes of one text. They may be those of the view, which must stay. Throws
  // std::out_of_range for a view that leads out of its buffer.
  std::string_view text(std::size_t i) const {
    const TextView& view = views[i];
    if (view.is_inline()) return {view.inline_bytes(), view.length};
    std::uint32_t place[2];
    std::memcpy(place, &view.rest, sizeof place);
    if (place[0] >= num_buffers || buffers[place[0]].size < place[1] ||
        buffers[place[0]].size - place[1] < view.length) {
      throw std::out_of_range("A text must lie in a buffer of its column.");
    }
    return {buffers[place[0]].data + place[1], view.length};
  }
};

}  // namespace shortlist

#endif  // SHORTLIST_ARROW_COLUMNS_H_

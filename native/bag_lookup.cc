#include "bag_lookup.h"

#include <algorithm>

#include "bag_entries.h"
#include "parallel.h"

namespace shortlist {
namespace {

// Ids a thread takes at a time: their entries stay in the first level cache.
constexpr std::size_t kIdsAtOnce = 2048;
// Values read that are worth starting a thread for.
constexpr std::size_t kWorkPerThread = 1 << 17;

}  // namespace

std::optional<OutOfRange> lookup(const RowKernels& kernels,
                                 const std::vector<Rows>& tables,
                                 const std::vector<LookedUp>& features,
                                 std::size_t threads) {
  std::vector<BagRange> ranges;
  std::size_t work = 0;
  for (std::size_t f = 0; f < features.size(); ++f) {
    split_bags(features[f].bags, f, kIdsAtOnce, ranges);
    work += features[f].bags.num_ids * tables[features[f].bags.table].dim;
  }
  threads = std::clamp<std::size_t>(work / kWorkPerThread, 1, threads);
  std::vector<std::optional<OutOfRange>> found(ranges.size());
  run_tasks(ranges.size(), threads, [&](std::size_t task) {
    thread_local BagEntries entries;
    const BagRange& range = ranges[task];
    const LookedUp& feature = features[range.feature];
    const Rows& rows = tables[feature.bags.table];
    const auto type = static_cast<std::size_t>(rows.type);
    entries.read(feature.bags, rows.num_rows, range.begin, range.end);
    if (entries.out_of_range) {
      found[task] = OutOfRange{range.feature, entries.first_out_of_range};
    }
    float* out = feature.vectors + range.begin * rows.dim;
    if (entries.one_each) {
      kernels.gather[type](rows, entries.rows.data(), entries.size, out);
    } else {
      kernels.combine[type](rows, entries.rows.data(), entries.coefficients.data(),
                            entries.ends.data(), range.end - range.begin, out);
    }
  });
  for (const auto& first : found) {
    if (first) return first;
  }
  return std::nullopt;
}

}  // namespace shortlist

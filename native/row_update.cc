#include "row_update.h"

#include <algorithm>

#include "parallel.h"

namespace shortlist {
namespace {

// Values moved that are worth starting a thread for.
constexpr std::size_t kWorkPerThread = 1 << 16;

}  // namespace

void update(const RowKernels& kernels, const std::vector<UpdatedTable>& tables,
            const std::vector<Backpropagated>& features, std::size_t threads) {
  std::vector<Movement> movements(tables.begin(), tables.end());
  std::size_t dim = 0, ids = 0;
  for (const UpdatedTable& table : tables) dim = std::max(dim, table.rows.dim);
  for (const Backpropagated& feature : features) ids += feature.bags.num_ids;
  threads = std::clamp<std::size_t>(ids * dim / kWorkPerThread, 1, threads);
  const std::vector<Bucket> buckets = deal(tables, features, threads);
  run_tasks(buckets.size(), threads, [&](std::size_t task) {
    thread_local GroupedBucket grouped;
    const Bucket& bucket = buckets[task];
    const UpdatedTable& table = tables[bucket.table];
    grouped.group(bucket);
    const auto kind = static_cast<std::size_t>(table.rule.kind);
    const auto type = static_cast<std::size_t>(table.rows.type);
    kernels.move[kind][type](movements[bucket.table], grouped.groups());
  });
}

}  // namespace shortlist

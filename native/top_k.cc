#include "top_k.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "parallel.h"
#include "selection.h"

namespace shortlist {
namespace {

// Queries that share one pass over the items: enough to pay for loading them.
constexpr std::size_t kGroupQueries = 32;
// Items scored at a time: their vectors stay in the first or second level cache.
constexpr std::size_t kBlockFloats = 8192;
constexpr std::size_t kMinBlockItems = 16;
constexpr std::size_t kMaxBlockItems = 512;
// Multiplications that are worth starting a thread for.
constexpr std::size_t kWorkPerThread = 1 << 20;

struct Range {
  std::size_t begin;
  std::size_t end;
};

Range part(std::size_t size, std::size_t parts, std::size_t i) {
  return {size * i / parts, size * (i + 1) / parts};
}

std::vector<std::int32_t> sorted_exclusions(const TopKInput& input, std::size_t query) {
  if (input.exclude_offsets == nullptr) return {};
  std::vector<std::int32_t> excluded(
      input.exclude_indices + input.exclude_offsets[query],
      input.exclude_indices + input.exclude_offsets[query + 1]);
  std::sort(excluded.begin(), excluded.end());
  return excluded;
}

// The best k candidates of each query of a group among a range of items.
std::vector<std::vector<Candidate>> scan(const DotKernel& kernel,
                                         const TopKInput& input, Range group,
                                         Range items, std::size_t k) {
  const std::size_t num_queries = group.end - group.begin;
  std::vector<Selection> selections(num_queries, Selection(k));
  std::vector<std::vector<std::int32_t>> excluded;
  for (std::size_t q = group.begin; q < group.end; ++q) {
    excluded.push_back(sorted_exclusions(input, q));
  }
  const std::size_t fitting = kBlockFloats / std::max<std::size_t>(input.dim, 1);
  const std::size_t block = std::clamp(fitting, kMinBlockItems, kMaxBlockItems);
  std::vector<float> scores(num_queries * block);
  for (std::size_t begin = items.begin; begin < items.end; begin += block) {
    const std::size_t size = std::min(block, items.end - begin);
    dot_block(kernel, input.queries + group.begin * input.dim, num_queries,
              input.items + begin * input.dim, size, input.dim, scores.data(), block);
    for (std::size_t q = 0; q < num_queries; ++q) {
      const float* row = scores.data() + q * block;
      for (std::size_t i = 0; i < size; ++i) {
        if (!selections[q].accepts(row[i])) continue;
        const auto index = static_cast<std::int32_t>(begin + i);
        if (std::binary_search(excluded[q].begin(), excluded[q].end(), index)) continue;
        selections[q].add(row[i], index);
      }
    }
  }
  std::vector<std::vector<Candidate>> best;
  for (Selection& selection : selections) best.push_back(selection.take());
  return best;
}

// Sorts the candidates of one query and writes its row of the answer.
void write_row(std::vector<Candidate> candidates, std::size_t k, float* scores,
               std::int32_t* indices) {
  const std::size_t found = std::min(k, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + found, candidates.end(),
                    better);
  for (std::size_t i = 0; i < found; ++i) {
    scores[i] = candidates[i].score;
    indices[i] = candidates[i].index;
  }
  std::fill(scores + found, scores + k, -std::numeric_limits<float>::infinity());
  std::fill(indices + found, indices + k, -1);
}

}  // namespace

void top_k(const DotKernel& kernel, const TopKInput& input, std::size_t threads,
           float* scores, std::int32_t* indices) {
  const std::size_t work = input.num_queries * input.num_items * input.dim;
  threads = std::clamp<std::size_t>(work / kWorkPerThread, 1, threads);
  const std::size_t groups = (input.num_queries + kGroupQueries - 1) / kGroupQueries;
  // Too few groups to keep every thread busy: split the items as well.
  const std::size_t splits =
      groups == 0 || groups >= threads ? 1 : (threads + groups - 1) / groups;
  const std::size_t kept = std::min(input.k, input.num_items);

  std::vector<std::vector<Candidate>> found(input.num_queries * splits);
  if (kept > 0) {
    run_tasks(groups * splits, threads, [&](std::size_t task) {
      const Range group = part(input.num_queries, groups, task / splits);
      const Range items = part(input.num_items, splits, task % splits);
      auto best = scan(kernel, input, group, items, kept);
      for (std::size_t i = 0; i < best.size(); ++i) {
        found[(group.begin + i) * splits + task % splits] = std::move(best[i]);
      }
    });
  }
  run_tasks(groups, threads, [&](std::size_t task) {
    const Range group = part(input.num_queries, groups, task);
    for (std::size_t q = group.begin; q < group.end; ++q) {
      std::vector<Candidate> all = std::move(found[q * splits]);
      for (std::size_t s = 1; s < splits; ++s) {
        const auto& more = found[q * splits + s];
        all.insert(all.end(), more.begin(), more.end());
      }
      write_row(std::move(all), input.k, scores + q * input.k, indices + q * input.k);
    }
  });
}

}  // namespace shortlist

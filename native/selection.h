// The k best of a stream of scored items. Knows nothing of vectors or threads.
#ifndef SHORTLIST_SELECTION_H_
#define SHORTLIST_SELECTION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace shortlist {

struct Candidate {
  float score;
  std::int32_t index;
};

// A total order over candidates without NaN, so the k best are one set whatever the
// order they came in.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

// Keeps the k best of items offered in ascending order of index.
//
// Candidates above the k-th best known score are appended, and the list is cut back to
// k when it is full: cheaper than a heap once k passes a few dozen.
class Selection {
 public:
  explicit Selection(std::size_t k) : k_(k), capacity_(k + std::max(k, kSlack)) {}

  // False for NaN, and for a score that cannot be among the k best any more.
  bool accepts(float score) const {
    return score > threshold_ || (!full_ && score == threshold_);
  }

  void add(float score, std::int32_t index) {
    candidates_.push_back({score, index});
    if (candidates_.size() >= capacity_) cut();
  }

  // The candidates left, at most k, in no order.
  std::vector<Candidate> take() {
    if (candidates_.size() > k_) cut();
    return std::move(candidates_);
  }

 private:
  static constexpr std::size_t kSlack = 256;

  void cut() {
    std::nth_element(candidates_.begin(), candidates_.begin() + (k_ - 1),
                     candidates_.end(), better);
    candidates_.resize(k_);
    threshold_ = candidates_.back().score;
    full_ = true;
  }

  std::size_t k_;
  std::size_t capacity_;
  std::vector<Candidate> candidates_;
  float threshold_ = -std::numeric_limits<float>::infinity();
  bool full_ = false;
};

}  // namespace shortlist

#endif  // SHORTLIST_SELECTION_H_

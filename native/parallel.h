// Runs numbered tasks on a few threads. Knows nothing of what a task does.
#ifndef SHORTLIST_PARALLEL_H_
#define SHORTLIST_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace shortlist {

// Calls task(0) .. task(num_tasks - 1), each once, on up to `threads` threads, the
// caller's included. The first exception stops the rest and is thrown here.
template <typename Task>
void run_tasks(std::size_t num_tasks, std::size_t threads, const Task& task) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  auto work = [&] {
    try {
      for (std::size_t i; (i = next.fetch_add(1)) < num_tasks;) task(i);
    } catch (...) {
      std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next.store(num_tasks);
    }
  };
  std::vector<std::thread> helpers;
  const std::size_t wanted = std::min(threads, num_tasks);
  try {
    for (std::size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // The system has no more threads to give: those that started do all the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace shortlist

#endif  // SHORTLIST_PARALLEL_H_

#include "model/checkpoint/in_parallel.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace lorikeet::model {

void in_parallel(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto take = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> helpers;
  const size_t wanted = std::min(count, static_cast<size_t>(std::max(1, threads)));
  try {
    for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(take);
  } catch (const std::system_error&) {  // those that are there do it
  }
  take();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace lorikeet::model

// How soon a lost group is started again. A few losses cost nothing; a group that is lost again and again, whether it
// serves in between or not, is started less and less often, until it has served for a while.
#pragma once

#include <algorithm>
#include <chrono>

namespace lorikeet::actors {

class RestartPacer {
 public:
  using Duration = std::chrono::milliseconds;
  static constexpr double kBurst = 10;             // losses without a wait
  static constexpr Duration kServedForOne{2'000};  // serving for so long earns one of them back
  static constexpr Duration kFirstDelay{250}, kMostDelay{30'000};

  // Notes the loss of a group that served for so long. Returns how long to wait before the next start.
  Duration lost_after(Duration served) {
    credit_ =
        std::min(kBurst, credit_ + static_cast<double>(served.count()) / static_cast<double>(kServedForOne.count()));
    if (credit_ >= 1) {
      credit_ -= 1;
      delay_ = Duration(0);
    } else {
      delay_ = std::clamp(2 * delay_, kFirstDelay, kMostDelay);
    }
    return delay_;
  }

 private:
  double credit_ = kBurst;
  Duration delay_{0};
};

}  // namespace lorikeet::actors

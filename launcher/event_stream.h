// Server-sent events, as OpenAI's API streams answers (the text/event-stream of the HTML standard, its data fields).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace lorikeet::launcher {

class EventStream {
 public:
  static constexpr size_t kMaxEventBytes = 64 << 20;

  void add(std::string_view bytes) { bytes_.append(bytes); }

  // The data of the next event that is there whole; its lines are joined by line ends. Comments and other fields are
  // passed over.
  std::optional<std::string> next();
  bool too_long() const { return bytes_.size() - begin_ > kMaxEventBytes; }  // an event has no end

 private:
  std::string bytes_;
  size_t begin_ = 0;  // of what has not been given
};

}  // namespace lorikeet::launcher

#include "launcher/event_stream.h"

namespace lorikeet::launcher {

std::optional<std::string> EventStream::next() {
  std::string data;
  bool has_data = false;
  for (size_t at = begin_;;) {
    const size_t end = bytes_.find('\n', at);
    if (end == std::string::npos) return std::nullopt;
    std::string_view line = std::string_view(bytes_).substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) {
      begin_ = at;
      if (begin_ > bytes_.size() / 2) {
        bytes_.erase(0, begin_);
        begin_ = 0;
        at = 0;
      }
      if (has_data) return data;
    } else if (line.rfind("data:", 0) == 0) {
      line.remove_prefix(line.size() > 5 && line[5] == ' ' ? 6 : 5);
      if (has_data) data += '\n';
      data += line;
      has_data = true;
    }
  }
}

}  // namespace lorikeet::launcher

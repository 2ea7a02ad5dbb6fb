#include "launcher/zmq_address.h"

#include <fmt/format.h>

namespace lorikeet::launcher {

CLI::Validator zmq_address() {
  CLI::Validator validator;
  validator.name("").description("").operation([](std::string& text) -> std::string {
    const auto begins_with = [&](const char* prefix) { return text.rfind(prefix, 0) == 0; };
    if (begins_with("ipc://") && text.size() > 6) return "";
    if (begins_with("tcp://")) {
      return text.find(':', 6) == std::string::npos ? fmt::format("{} has no port: give tcp://HOST:PORT", text) : "";
    }
    if (text.find("://") != std::string::npos) {
      return fmt::format("{} is neither tcp://HOST:PORT nor ipc://PATH", text);
    }
    if (text.find(':') != std::string::npos) return fmt::format("tcp:// is missing: give tcp://{}", text);
    return fmt::format("{} is neither tcp://HOST:PORT nor ipc://PATH", text);
  });
  return validator;
}

}  // namespace lorikeet::launcher

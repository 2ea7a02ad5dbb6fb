#include "launcher/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "kernels/base/printable.h"

namespace lorikeet::launcher {
namespace {

constexpr size_t kFewestColumns = 40;  // a narrower terminal breaks lines itself

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

}  // namespace

Terminal terminal_of(int descriptor) {
  Terminal terminal;
  const char* kind = std::getenv("TERM");
  if (isatty(descriptor) == 0 || (kind != nullptr && std::strcmp(kind, "dumb") == 0)) return terminal;
  terminal.present = true;
  const char* no_color = std::getenv("NO_COLOR");
  terminal.colours = no_color == nullptr || *no_color == '\0';
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col >= kFewestColumns) terminal.columns = size.ws_col;
  return terminal;
}

size_t text_width(std::string_view text) {
  size_t width = 0;
  for (const char c : text) width += is_continuation(c) ? 0 : 1;
  return width;
}

std::string shortened(std::string_view text, size_t width) {
  constexpr std::string_view kMore = "...";
  const bool cut = text_width(text) > width;
  const size_t kept = !cut ? width : width > kMore.size() ? width - kMore.size() : 0;
  std::string out;
  size_t columns = 0;
  for (const char c : text) {
    if (!is_continuation(c) && columns++ == kept) break;
    out += is_control(c) ? ' ' : c;
  }
  if (cut) out += kMore.substr(0, width);
  return out;
}

std::string padded(std::string text, size_t width) {
  const size_t columns = text_width(text);
  if (columns < width) text.append(width - columns, ' ');
  return text;
}

std::string coloured(const Terminal& terminal, const char* code, std::string_view text) {
  return terminal.colours ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

}  // namespace lorikeet::launcher

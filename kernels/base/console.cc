#include "kernels/base/console.h"

#include <cerrno>
#include <cstring>

#include "kernels/base/line_writer.h"

namespace lorikeet {
namespace {

// Of the process, like standard error is.
PatientWriter& writer() {
  static PatientWriter of_process;
  return of_process;
}

}  // namespace

void say_line(int descriptor, std::string line) {
  line += '\n';
  say_text(descriptor, line);
}

void say_text(int descriptor, std::string_view text) {
  (void)writer().write(descriptor, text);  // what is not taken is dropped
}

Result<void> write_text(std::FILE* file, std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fflush(file) != 0) {
    return fail("the output cannot be written: {}", std::strerror(errno));
  }
  return {};
}

}  // namespace lorikeet

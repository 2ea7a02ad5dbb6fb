// Jinja2, as chat templates use it and as transformers runs it (an immutable sandbox with trim_blocks, lstrip_blocks,
// loopcontrols, its own tojson, raise_exception, strftime_now and generation blocks). Bounded in steps, output bytes and
// depth, whatever the template. Left out, and refused by name: templates that need others (extends, include, import),
// recursive loops, and filters of web pages (urlize, xmlattr, striptags, ...), of chance and of layout (random, pprint,
// wordwrap, filesizeformat, urlencode).
#pragma once

#include <ctime>
#include <memory>
#include <string_view>

#include "kernels/base/error.h"
#include "model/chat/jinja/evaluator.h"

namespace lorikeet::model::jinja {

// Threads: const methods from any number of threads at once.
class Program {
 public:
  static constexpr size_t kMaxSource = 1 << 20;

  // source is UTF-8.
  static Result<Program> compile(std::string_view source);

  // now: what strftime_now shows.
  Result<Text> render(const Evaluator::Variables& variables, std::time_t now, Limits limits = {}) const;

  // Whether the template speaks of this variable at all.
  bool mentions(std::string_view name) const;

  // Whether a loop goes through a variable or a member of this name.
  bool loops_over(std::string_view name) const;

 private:
  std::shared_ptr<const Syntax> syntax_;
};

}  // namespace lorikeet::model::jinja

#include "model/grammar/pattern_check.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/json_nesting.h"
#include "model/grammar/schema_check.h"

namespace lorikeet::model {
namespace {

constexpr size_t kMaxBrackets = 100;     // open at once
constexpr uint64_t kMaxWeight = 20'000;  // pieces that all repetitions together spell

// Milliseconds of a core, about, with a vocabulary of 152,064 tokens: every state is compared with all of it. Measured
// with tests/model/grammar/grammar_tool.cc.
constexpr double kClassCost = 1.3;     // of [a-z]
constexpr double kWideCost = 15;       // of what nearly all tokens fit: ".", [^a], characters that are not ASCII
constexpr double kOptionalCost = 0.2;  // of each pair in a row of pieces that may be left out
constexpr double kWideOptionalCost = 4;
constexpr uint64_t kMostUnrolled = 8;  // longer repetitions are counted, not spelled

struct Repeat {
  uint64_t least = 0, most = 0;
  size_t end = 0;  // behind it
};

// {3}, {3,} or {3,9} at `at`. None: it is something else.
std::optional<Repeat> repeats(std::string_view pattern, size_t at) {
  const size_t close = pattern.find('}', at);
  if (close == std::string_view::npos || close == at + 1) return std::nullopt;
  Repeat repeat;
  bool first = true;
  const char* next = pattern.data() + at + 1;
  const char* const last = pattern.data() + close;
  while (next < last) {
    uint64_t number = 0;
    const auto parsed = std::from_chars(next, last, number);
    if (parsed.ec == std::errc::result_out_of_range) number = UINT32_MAX;
    if (parsed.ec == std::errc::invalid_argument) return std::nullopt;
    if (std::exchange(first, false)) repeat.least = number;
    repeat.most = std::max({repeat.most, std::min<uint64_t>(number, UINT32_MAX), uint64_t{1}});
    next = parsed.ptr;
    if (next < last && *next++ != ',') return std::nullopt;
  }
  repeat.end = close + 1;
  return repeat;
}

// A piece that a repetition may follow: a character, a class, a group.
struct Piece {
  uint64_t weight = 0;
  double cost = 0;
  bool wide = false;
  bool optional = false;  // may be nothing
  size_t tail = 0;        // optional pieces in a row at its end
};

// What has been opened: the whole, or a group.
struct Sequence {
  uint64_t weight = 0;
  double cost = 0;
  bool wide = false;            // any of its pieces
  bool optional = true;         // the present alternative may be nothing
  bool any_optional = false;    // one of the alternatives may
  size_t row = 0;               // optional pieces in a row at the present end
  std::optional<Piece> latest;  // not added yet: a repetition may follow

  void add() {
    if (!latest) return;
    weight += latest->weight;
    cost += latest->cost;
    wide = wide || latest->wide;
    if (latest->optional) {
      const size_t before = row;
      row += std::max<size_t>(latest->tail, 1);
      cost += (latest->wide ? kWideOptionalCost : kOptionalCost) * static_cast<double>(row * row - before * before);
    } else {
      row = latest->tail;
      optional = false;
    }
    latest.reset();
  }
};

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

// Behind the class that begins at `at`.
size_t end_of_class(std::string_view pattern, size_t at) {
  size_t end = at + 1;
  if (end < pattern.size() && pattern[end] == '^') ++end;
  for (; end < pattern.size() && pattern[end] != ']'; ++end) {
    if (pattern[end] == '\\') ++end;
  }
  return std::min(end + 1, pattern.size());
}

bool is_wide_class(std::string_view text) {
  return text.substr(1, 1) == "^" || !std::all_of(text.begin(), text.end(), is_ascii) ||
         text.find("\\u") != std::string_view::npos || text.find("\\W") != std::string_view::npos ||
         text.find("\\D") != std::string_view::npos || text.find("\\S") != std::string_view::npos;
}

class Estimate {
 public:
  Estimate(std::string_view pattern, GrammarKind kind)
      : pattern_(pattern),
        has_strings_(kind != GrammarKind::regex),
        has_dots_(kind != GrammarKind::ebnf),
        is_lark_(kind == GrammarKind::lark) {}

  Result<double> run() {
    for (size_t at = 0; at < pattern_.size();) {
      at = step(at);
      if (inner_error_) return tl::unexpected(*inner_error_);
      const Sequence& open = open_.back();
      if (open_.size() > kMaxBrackets + 1) return fail("more than {} brackets are open at once", kMaxBrackets);
      const uint64_t latest = open.latest ? open.latest->weight : 0;
      if (open.weight + latest > kMaxWeight + pattern_.size()) {
        return fail("its repetitions spell more than {} pieces", kMaxWeight);
      }
      if (open.cost + (open.latest ? open.latest->cost : 0) > kMaxCompileCost) return too_costly();
    }
    while (open_.size() > 1) close();
    open_.back().add();
    if (open_.back().cost > kMaxCompileCost) return too_costly();
    return open_.back().cost;
  }

 private:
  static Result<double> too_costly() {
    return fail("it has too many classes or pieces that may be left out: it would take too long to compile");
  }

  // Takes what begins at `at`, and gives where it ends.
  size_t step(size_t at) {
    const char c = pattern_[at];
    Sequence& open = open_.back();
    if (has_strings_) {
      if (const size_t next = token_at(at); next > at) return next;
    }
    if (c == '"' && has_strings_) return string(at);
    if (has_strings_ && is_name(c)) return name(at);
    if (is_lark_) {
      if (c == '/') return expression(at);
      if (c == '%') return directive(at);
      if (c == '<') return special_token(at);
    }
    if (c == '\\' && at + 1 < pattern_.size()) {
      const char what = pattern_[at + 1];
      const bool wide = what == 'W' || what == 'D' || what == 'S';
      const bool is_class = what == 'w' || what == 'd' || what == 's';
      begin({1, wide ? kWideCost : is_class ? kClassCost : 0, wide});
      return at + 2;
    }
    if (c == '[' && !is_lark_) {
      const size_t end = end_of_class(pattern_, at);
      const bool wide = is_wide_class(pattern_.substr(at, end - at));
      begin({1, wide ? kWideCost : kClassCost, wide});
      return end;
    }
    const auto repeat = has_strings_ ? repeats_of_grammar(at) : c == '{' ? repeats(pattern_, at) : std::nullopt;
    if (c == '(' || c == '[' || (c == '{' && is_lark_ && !repeat)) {
      open.add();
      open_.emplace_back();
    } else if ((c == ')' || ((c == ']' || c == '}') && is_lark_)) && open_.size() > 1) {
      close();
      if (c == ']') open_.back().latest->optional = true;
    } else if (c == '|') {
      open.add();
      open.any_optional = open.any_optional || open.optional;
      open.optional = true;
      open.row = 0;
    } else if (c == '*' || c == '?') {
      if (open.latest) open.latest->optional = true;
    } else if (c == '+' || ((c == '^' || c == '$') && !has_strings_)) {
      return at + 1;  // no pieces: what is before them may go on
    } else if (repeat) {
      if (open.latest) apply(*repeat, *open.latest);
      return repeat->end;
    } else if (c == '.' && has_dots_) {
      begin({1, kWideCost, true});
    } else {
      begin({1, 0, false});
    }
    return at + 1;
  }

  // Where the next token of a grammar begins: behind white space and comments.
  size_t token_at(size_t at) const {
    while (at < pattern_.size()) {
      if (is_space(pattern_[at])) {
        ++at;
      } else if (pattern_[at] == '#' || (is_lark_ && pattern_.substr(at, 2) == "//")) {
        at = std::min(pattern_.find_first_of("\r\n", at), pattern_.size());
      } else {
        break;
      }
    }
    return at;
  }

  // {3}, {3,}, {3,9} or {3,-1}, and ~3 and ~3..9 of Lark, between whose tokens may be white space and comments.
  std::optional<Repeat> repeats_of_grammar(size_t at) const {
    const char opened = pattern_[at];
    if (opened != '{' && (opened != '~' || !is_lark_)) return std::nullopt;
    Repeat repeat;
    bool first = true;
    for (size_t next = token_at(at + 1); next < pattern_.size(); next = token_at(next)) {
      const char c = pattern_[next];
      if (is_digit(c)) {
        size_t end = next;
        while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
        uint64_t number = UINT32_MAX;
        if (end - next < 10) std::from_chars(pattern_.data() + next, pattern_.data() + end, number);
        if (std::exchange(first, false)) repeat.least = number;
        repeat.most = std::max({repeat.most, number, uint64_t{1}});
        repeat.end = next = end;
        if (opened == '~' && pattern_.substr(token_at(end), 2) != "..") break;
      } else if (opened == '~' && !first && pattern_.substr(next, 2) == "..") {
        next += 2;
      } else if (c == '+' || c == '-' || (opened == '{' && c == ',')) {
        ++next;
      } else if (opened == '{' && c == '}' && !first) {
        repeat.end = next + 1;
        return repeat;
      } else {
        break;
      }
    }
    return opened == '~' && !first ? std::optional(repeat) : std::nullopt;
  }

  static void apply(const Repeat& repeat, Piece& piece) {
    piece.weight *= repeat.most;
    piece.cost *= static_cast<double>(std::min(repeat.most, kMostUnrolled));
    piece.optional = piece.optional || repeat.least == 0;
  }

  void begin(Piece piece) {
    open_.back().add();
    open_.back().latest = piece;
  }

  void close() {
    Sequence& inner = open_.back();
    inner.add();
    const Piece group{std::max<uint64_t>(inner.weight, 1), inner.cost, inner.wide, inner.optional || inner.any_optional,
                      inner.row};
    open_.pop_back();
    begin(group);
  }

  // "..." of a grammar: its characters stand for themselves.
  size_t string(size_t at) {
    size_t end = at + 1;
    for (; end < pattern_.size() && pattern_[end] != '"' && pattern_[end] != '\n'; ++end) {
      if (pattern_[end] == '\\') ++end;
    }
    begin({std::max<uint64_t>(end - at - 1, 1), 0, false});
    end = std::min(end + 1, pattern_.size());
    return is_lark_ && pattern_.substr(end, 1) == "i" ? end + 1 : end;
  }

  // /.../ of Lark, and flags: an expression, in which quotes, brackets and ends of lines mean something else.
  size_t expression(size_t at) {
    size_t end = at + 1;
    for (; end < pattern_.size() && pattern_[end] != '/'; ++end) {
      if (pattern_[end] == '\\') ++end;
    }
    Estimate inner(pattern_.substr(0, std::min(end, pattern_.size())).substr(at + 1), GrammarKind::regex);
    const auto cost = inner.run();
    Piece piece{1, 0, false};
    if (cost) {
      const Sequence& whole = inner.open_.back();
      piece = {std::max<uint64_t>(whole.weight, 1), *cost, whole.wide, whole.optional || whole.any_optional, whole.row};
    } else {
      inner_error_ = cost.error();
    }
    begin(piece);
    for (++end; end < pattern_.size() && is_name(pattern_[end]) && !is_digit(pattern_[end]);) ++end;
    return std::min(end, pattern_.size());
  }

  // %json and a schema, or another word of Lark's, some of which have JSON behind them.
  size_t directive(size_t at) {
    size_t end = at + 1;
    while (end < pattern_.size() && is_name(pattern_[end])) ++end;
    const std::string_view word = pattern_.substr(at, end - at);
    if (word != "%json" && word != "%regex" && word != "%grammar_options") return end;
    while (end < pattern_.size() && is_space(pattern_[end])) ++end;
    const size_t size = json_size(pattern_.substr(end));
    const std::string_view json = pattern_.substr(end, size);
    if (word == "%json") {
      const auto cost = schema_cost(json);
      if (!cost) inner_error_ = Error{"%json: " + cost.error().message};
      begin({1, cost.value_or(0), false});
    } else {
      if (nests_deeper(json, kMaxBrackets)) inner_error_ = Error{fmt::format("{} is nested too deeply", word)};
      begin({std::max<uint64_t>(size, 1), 0, false});
    }
    return end + size;
  }

  // Of the object at its beginning, or of a word.
  static size_t json_size(std::string_view text) {
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (in_string) {
        if (c == '\\') ++i;
        in_string = c != '"';
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if ((c == '}' || c == ']') && depth > 0 && --depth == 0) {
        return i + 1;
      } else if (depth == 0 && !is_name(c)) {
        return i;
      }
    }
    return text.size();
  }

  // <name> of Lark, in which nothing means anything else.
  size_t special_token(size_t at) {
    begin({1, 0, false});
    const size_t end = pattern_.find_first_of("<> \t\r\n", at + 1);
    return end != std::string_view::npos && pattern_[end] == '>' ? end + 1 : at + 1;
  }

  // That of a rule, which may hide what may be left out.
  size_t name(size_t at) {
    size_t end = at;
    while (end < pattern_.size() && (is_name(pattern_[end]) || pattern_[end] == '-')) ++end;
    begin({1, 0, false, true, 0});
    return end;
  }

  const std::string_view pattern_;
  const bool has_strings_;  // "..." stands for itself, and white space for nothing
  const bool has_dots_;     // that stand for any character
  const bool is_lark_;
  std::optional<Error> inner_error_;  // of an expression in a grammar
  std::vector<Sequence> open_ = std::vector<Sequence>(1);
};

}  // namespace

Result<double> pattern_cost(std::string_view pattern, GrammarKind kind) {
  return Estimate(pattern, kind).run();
}

}  // namespace lorikeet::model

#include "model/grammar/pattern_check.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

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
    if (c == '"' && has_strings_) return string(at);
    if (has_strings_ && is_name(c)) return name(at);
    if (c == '#' && has_strings_) return end_of_line(at);
    if (c == '/' && is_lark_) return pattern_.substr(at, 2) == "//" ? end_of_line(at) : expression(at);
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
    if (c == '(' || c == '[') {
      open.add();
      open_.emplace_back();
    } else if ((c == ')' || (c == ']' && is_lark_)) && open_.size() > 1) {
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
    } else if (const auto repeat = c == '{' ? repeats(pattern_, at) : std::nullopt) {
      if (open.latest) apply(*repeat, *open.latest);
      return repeat->end;
    } else if (c == '.' && has_dots_) {
      begin({1, kWideCost, true});
    } else if (c != ' ' || !has_strings_) {
      begin({1, 0, false});
    }
    return at + 1;
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
    return std::min(end + 1, pattern_.size());
  }

  // /.../ of Lark: an expression, in which quotes and brackets mean something else.
  size_t expression(size_t at) {
    size_t end = at + 1;
    for (; end < pattern_.size() && pattern_[end] != '/' && pattern_[end] != '\n'; ++end) {
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
    return std::min(end + 1, pattern_.size());
  }

  size_t end_of_line(size_t at) const { return std::min(pattern_.find('\n', at), pattern_.size()); }

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

// Functions that templates find by name.
#include <time.h>

#include <unordered_map>

#include "model/chat/jinja/builtins.h"

namespace lorikeet::model::jinja {
namespace {

constexpr uint64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value function(std::string name, std::function<Value(Evaluator&, const Arguments&)> call) {
  return std::make_shared<const Callable>(Callable{std::move(name), std::move(call)});
}

Value range(Evaluator& evaluator, const Arguments& arguments) {
  check_arguments("range", arguments, 3, {});
  const size_t given = arguments.positional.size();
  if (given == 0) raise("range needs an argument");
  const int64_t first = given == 1 ? 0 : integer_argument(arguments, 0, "start", 0);
  const int64_t last = integer_argument(arguments, given == 1 ? 0 : 1, "stop", 0);
  const int64_t step = integer_argument(arguments, 2, "step", 1);
  if (step == 0) raise("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (items.size() >= kMaxRange) raise("a range of more than {} items", kMaxRange);
    items.push_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  evaluator.charge(items.size());
  std::string name =
      step == 1 ? fmt::format("range({}, {})", first, last) : fmt::format("range({}, {}, {})", first, last, step);
  return make_list(std::move(items), List::Kind::range, std::move(name));
}

// dict(mapping or pairs, key=value, ...)
std::shared_ptr<Dict> make_dict(const Arguments& arguments) {
  if (arguments.positional.size() > 1) raise("dict takes at most one argument and names");
  auto dict = std::make_shared<Dict>();
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.dict()) {
      for (const auto& [key, value] : from.dict()->items) dict->set(key, value);
    } else {
      for (const Value& pair : items_of(from)) {
        const auto both = iterate(pair);
        if (both->items.size() != 2) raise("dict needs pairs");
        if (!is_hashable(both->items[0])) raise("unhashable type: '{}'", both->items[0].type_name());
        dict->set(both->items[0], both->items[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict->set(Text::own(name), value);
  return dict;
}

Value dict(Evaluator& evaluator, const Arguments& arguments) {
  auto made = make_dict(arguments);
  evaluator.charge(made->items.size());
  return std::shared_ptr<const Dict>(std::move(made));
}

Value make_space(Evaluator& evaluator, const Arguments& arguments) {
  Namespace space;
  const auto dict = make_dict(arguments);
  for (const auto& [key, value] : dict->items) {
    if (!key.text()) raise("a namespace needs names that are strings");
    if (key.text()->view().starts_with('_')) raise("a namespace has no attribute \"{}\" to set", key.text()->bytes());
    space.attributes[key.text()->bytes()] = value;
  }
  return evaluator.make_namespace(std::move(space));
}

// An object with next(), reset() and current.
Value cycler(Evaluator& evaluator, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("at least one item has to be provided");
  const auto items = std::make_shared<const std::vector<Value>>(arguments.positional);
  const auto at = std::make_shared<size_t>(0);
  const Value space = evaluator.make_namespace({});
  auto* attributes = &space.space()->attributes;
  const auto show = [items, at, attributes] { (*attributes)["current"] = (*items)[*at]; };
  (*attributes)["next"] = function("next", [items, at, show](Evaluator&, const Arguments&) {
    const Value current = (*items)[*at];
    *at = (*at + 1) % items->size();
    show();
    return current;
  });
  (*attributes)["reset"] = function("reset", [at, show](Evaluator&, const Arguments&) {
    *at = 0;
    show();
    return Value(None{});
  });
  show();
  return space;
}

Value joiner(Evaluator&, const Arguments& arguments) {
  const Text separator = text_argument(arguments, 0, "sep", ", ");
  return function("joiner", [separator, used = std::make_shared<bool>(false)](Evaluator&, const Arguments&) {
    return std::exchange(*used, true) ? Value(separator) : Value(Text());
  });
}

Value raise_exception(Evaluator&, const Arguments& arguments) {
  const Value* message = argument(arguments, 0, "message");
  raise("{}", message ? to_text(*message).bytes() : std::string("the template refuses the conversation"));
}

Value strftime_now(Evaluator& evaluator, const Arguments& arguments) {
  const Text format = text_argument(arguments, 0, "format", "");
  const std::time_t now = evaluator.now();
  std::tm local = {};
  localtime_r(&now, &local);
  char buffer[1024];
  if (format.size() > 256) raise("strftime_now: a format of {} bytes", format.size());
  const size_t size = std::strftime(buffer, sizeof buffer, format.bytes().c_str(), &local);
  return Text::as(format, std::string(buffer, size));
}

}  // namespace

Value global_function(std::string_view name) {
  static const std::unordered_map<std::string_view, Value> table = {
      {"range", function("range", range)},
      {"dict", function("dict", dict)},
      {"namespace", function("namespace", make_space)},
      {"cycler", function("cycler", cycler)},
      {"joiner", function("joiner", joiner)},
      {"raise_exception", function("raise_exception", raise_exception)},
      {"strftime_now", function("strftime_now", strftime_now)},
  };
  const auto found = table.find(name);
  return found == table.end() ? Value() : found->second;
}

}  // namespace lorikeet::model::jinja

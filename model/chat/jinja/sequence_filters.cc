// Filters of sequences and dicts.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/letter_case.h"

namespace lorikeet::model::jinja {
namespace {

Value generator(std::vector<Value> items) {
  return make_list(std::move(items), List::Kind::generator);
}

// The values on a path such as "function.name" or "0.role".
class AttributePath {
 public:
  explicit AttributePath(const Value& path) {
    if (!path.text()) {
      if (!path.is_none()) parts_.push_back(path);
      return;
    }
    std::string_view rest = path.text()->view();
    while (true) {
      const size_t dot = std::min(rest.find('.'), rest.size());
      const std::string part(rest.substr(0, dot));
      const bool digits = !part.empty() && part.size() < 10 &&
                          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      parts_.push_back(digits ? Value(int64_t{std::stoi(part)}) : Value(Text::own(part)));
      if (dot == rest.size()) break;
      rest.remove_prefix(dot + 1);
    }
  }

  Value of(Value item, const Value* otherwise = nullptr) const {
    for (const Value& part : parts_) {
      item = item_of(item, part);
      if (otherwise && item.is_undefined()) item = *otherwise;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
};

// Text is compared without its case unless asked for.
Value folded(const Value& value, bool case_sensitive) {
  return case_sensitive || !value.text() ? value : Value(in_case(*value.text(), "lower"));
}

AttributePath path_argument(const Arguments& arguments, size_t place) {
  const Value* path = argument(arguments, place, "attribute");
  return AttributePath(path ? *path : Value(None{}));
}

struct Keyed {
  Value key, value;
};

std::vector<Keyed> keyed(const Value& input, const AttributePath& path, bool case_sensitive) {
  std::vector<Keyed> result;
  for (const Value& item : items_of(input)) result.push_back({folded(path.of(item), case_sensitive), item});
  return result;
}

uint64_t sort_cost(size_t size) {
  uint64_t levels = 1;
  while ((size >> levels) > 0) ++levels;
  return levels * size;
}

// As sorted(): stable, also in reverse. The order raises, so that it is made of comparisons that std::sort's contract
// survives.
void sort_keyed(Evaluator& evaluator, std::vector<Keyed>* items, bool reverse) {
  evaluator.charge(sort_cost(items->size()));
  for (size_t i = 1; i < items->size(); ++i) compare((*items)[0].key, (*items)[i].key);
  std::stable_sort(items->begin(), items->end(), [reverse](const Keyed& a, const Keyed& b) {
    return reverse ? compare(a.key, b.key) > 0 : compare(a.key, b.key) < 0;
  });
}

std::vector<Value> values_of(std::vector<Keyed> items) {
  std::vector<Value> values;
  for (Keyed& item : items) values.push_back(std::move(item.value));
  return values;
}

Value sort(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  check_arguments("sort", arguments, 3, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = flag_argument(arguments, 1, "case_sensitive", false);
  const Value* path = argument(arguments, 2, "attribute");
  std::vector<AttributePath> paths;  // several, with commas between
  if (path && path->text()) {
    Arguments comma;
    comma.positional.push_back(Value::own(","));
    Value parts;
    call_string_method(*path->text(), "split", comma, &parts);
    for (const Value& part : parts.list()->items) paths.emplace_back(part);
  } else {
    paths.emplace_back(path ? *path : Value(None{}));
  }
  std::vector<Keyed> items;
  for (const Value& item : items_of(input)) {
    std::vector<Value> key;
    for (const AttributePath& one : paths) key.push_back(folded(one.of(item), case_sensitive));
    items.push_back({make_list(std::move(key)), item});
  }
  sort_keyed(evaluator, &items, flag_argument(arguments, 0, "reverse", false));
  return make_list(values_of(std::move(items)));
}

Value dict_sort(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  check_arguments("dictsort", arguments, 3, {"case_sensitive", "by", "reverse"});
  if (!input.dict()) raise("dictsort of a {}", input.type_name());
  const Text by = text_argument(arguments, 1, "by", "key");
  if (by.view() != "key" && by.view() != "value") raise("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> items;
  for (const auto& [key, value] : input.dict()->items) {
    items.push_back({folded(by.view() == "key" ? key : value, flag_argument(arguments, 0, "case_sensitive", false)),
                     make_list({key, value}, List::Kind::tuple)});
  }
  sort_keyed(evaluator, &items, flag_argument(arguments, 2, "reverse", false));
  return make_list(values_of(std::move(items)));
}

Value unique(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  check_arguments("unique", arguments, 2, {"case_sensitive", "attribute"});
  std::vector<Value> kept;
  Dict seen;
  for (Keyed& item : keyed(input, path_argument(arguments, 1), flag_argument(arguments, 0, "case_sensitive", false))) {
    if (!is_hashable(item.key)) raise("unhashable type: '{}'", item.key.type_name());
    evaluator.charge(1 + (item.key.text() ? 0 : seen.items.size()));
    if (seen.find(item.key)) continue;
    seen.set(item.key, None{});
    kept.push_back(std::move(item.value));
  }
  return generator(std::move(kept));
}

template <int kSign>
Value extreme(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("min and max", arguments, 2, {"case_sensitive", "attribute"});
  const auto items = keyed(input, path_argument(arguments, 1), flag_argument(arguments, 0, "case_sensitive", false));
  if (items.empty()) return Undefined{"No aggregated item, sequence was empty."};
  const Keyed* best = &items[0];
  for (size_t i = 1; i < items.size(); ++i) {
    if (kSign * compare(items[i].key, best->key) > 0) best = &items[i];
  }
  return best->value;
}

Value group_by(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  check_arguments("groupby", arguments, 3, {"attribute", "default", "case_sensitive"});
  const Value *path = argument(arguments, 0, "attribute"), *otherwise = argument(arguments, 1, "default");
  if (!path) raise("groupby needs an attribute");
  const bool case_sensitive = flag_argument(arguments, 2, "case_sensitive", false);
  const AttributePath attribute(*path);
  std::vector<Keyed> items;
  for (const Value& item : items_of(input)) {
    items.push_back({folded(attribute.of(item, otherwise), case_sensitive), item});
  }
  sort_keyed(evaluator, &items, false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < items.size();) {
    size_t end = begin;
    std::vector<Value> group;
    while (end < items.size() && equal(items[end].key, items[begin].key)) group.push_back(items[end++].value);
    const Value key = case_sensitive ? items[begin].key : attribute.of(items[begin].value, otherwise);
    groups.push_back(make_list({key, make_list(std::move(group))}, List::Kind::tuple));
    begin = end;
  }
  return make_list(std::move(groups));
}

Value join(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("join", arguments, 2, {"d", "attribute"});
  const Value* between = argument(arguments, 0, "d");
  const AttributePath path = path_argument(arguments, 1);
  Text result;
  bool first = true;
  for (const Value& item : items_of(input)) {
    if (!std::exchange(first, false) && between) append_text(*between, &result);
    append_text(path.of(item), &result);
  }
  return result;
}

Value first(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("first", arguments, 0, {});
  const auto list = iterate(input);
  return list->items.empty() ? Value(Undefined{"No first item, sequence was empty."}) : list->items.front();
}

bool is_reversible(const Value& input) {
  const List* list = input.list();
  return !list || list->kind != List::Kind::generator;
}

Value last(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("last", arguments, 0, {});
  if (!is_reversible(input)) raise("last of a generator; put |list in front");
  if (const Text* text = input.text(); text && !text->empty()) return item_of(input, int64_t{-1});
  const auto list = iterate(input);
  return list->items.empty() ? Value(Undefined{"No last item, sequence was empty."}) : list->items.back();
}

Value length(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("length", arguments, 0, {});
  if (const Text* text = input.text()) return Value::integer(count_code_points(text->view()));
  if (const Dict* dict = input.dict()) return Value::integer(dict->items.size());
  const List* list = input.list();
  if (list && list->kind != List::Kind::generator) return Value::integer(list->items.size());
  if (input.is_undefined()) return int64_t{0};
  raise("object of type '{}' has no len()", input.type_name());
}

Value list(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("list", arguments, 0, {});
  const Items items = items_of(input);
  return make_list({items.begin(), items.end()});
}

Value items(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("items", arguments, 0, {});
  if (input.is_undefined()) return generator({});
  if (!input.dict()) raise("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict()->items) pairs.push_back(make_list({key, value}, List::Kind::tuple));
  return generator(std::move(pairs));
}

Value reverse(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("reverse", arguments, 0, {});
  if (input.text()) return slice(input, None{}, None{}, int64_t{-1});
  const auto all = iterate(input);
  return generator({all->items.rbegin(), all->items.rend()});
}

Value sum(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  check_arguments("sum", arguments, 2, {"attribute", "start"});
  const Value* start = argument(arguments, 1, "start");
  Value total = start ? *start : Value(int64_t{0});
  const AttributePath path = path_argument(arguments, 0);
  if (total.text()) raise("sum() can't sum strings");
  for (const Value& item : items_of(input)) total = binary(evaluator, "+", total, path.of(item));
  return total;
}

Value batch(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("batch", arguments, 2, {"linecount", "fill_with"});
  const int64_t count = integer_argument(arguments, 0, "linecount", 0);
  const Value* fill = argument(arguments, 1, "fill_with");
  if (count < 1 || count > 1 << 20) raise("batch: the line count is {}", count);
  std::vector<Value> lines, line;
  for (const Value& item : items_of(input)) {
    if (line.size() == static_cast<size_t>(count)) lines.push_back(make_list(std::exchange(line, {})));
    line.push_back(item);
  }
  if (!line.empty()) {
    if (fill && !fill->is_none()) line.resize(static_cast<size_t>(count), *fill);
    lines.push_back(make_list(std::move(line)));
  }
  return generator(std::move(lines));
}

Value slices(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("slice", arguments, 2, {"slices", "fill_with"});
  const int64_t count = integer_argument(arguments, 0, "slices", 0);
  const Value* fill = argument(arguments, 1, "fill_with");
  if (count < 1 || count > 1 << 20) raise("slice: the number of slices is {}", count);
  const auto all = iterate(input);
  const size_t parts = static_cast<size_t>(count), each = all->items.size() / parts, extra = all->items.size() % parts;
  std::vector<Value> result;
  auto from = all->items.begin();
  for (size_t i = 0; i < parts; ++i) {
    const auto to = from + static_cast<ptrdiff_t>(each + (i < extra ? 1 : 0));
    std::vector<Value> part(from, to);
    if (fill && !fill->is_none() && i >= extra) part.push_back(*fill);
    result.push_back(make_list(std::move(part)));
    from = to;
  }
  return generator(std::move(result));
}

Value attribute(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("attr", arguments, 1, {"name"});
  const Text name = text_argument(arguments, 0, "name", "");
  if (input.dict()) return Undefined{fmt::format("'dict object' has no attribute '{}'", name.bytes())};
  return attribute_of(input, name.view());
}

Value map(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  if (!input.truth()) return generator({});
  std::vector<Value> result;
  if (arguments.positional.empty()) {
    const Value *path = argument(arguments, 0, "attribute"), *otherwise = argument(arguments, 1, "default");
    if (!path) raise("map requires a filter argument");
    check_arguments("map", arguments, 0, {"attribute", "default"});
    const AttributePath by(*path);
    for (const Value& item : items_of(input)) result.push_back(by.of(item, otherwise));
    return generator(std::move(result));
  }
  const Text* name = arguments.positional[0].text();
  const Filter* filter = name ? find_filter(name->view()) : nullptr;
  if (!filter) raise("No filter named '{}'.", to_text(arguments.positional[0]).bytes());
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_of(input)) {
    evaluator.charge(1);
    result.push_back((*filter)(evaluator, item, rest));
  }
  return generator(std::move(result));
}

template <bool kOfAttribute, bool kKeep>
Value select(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  if (!input.truth()) return generator({});
  const auto& given = arguments.positional;
  constexpr size_t kTestAt = kOfAttribute ? 1 : 0;
  if (given.size() < kTestAt) raise("Missing parameter for attribute name");
  const AttributePath path(kOfAttribute ? given[0] : Value(None{}));
  const Test* test = nullptr;
  Arguments rest;
  if (given.size() > kTestAt) {
    const Text* name = given[kTestAt].text();
    if (!name || !is_test(name->view())) raise("No test named '{}'.", to_text(given[kTestAt]).bytes());
    test = &tests().at(name->view());
    rest.positional.assign(given.begin() + kTestAt + 1, given.end());
    rest.named = arguments.named;
  }
  std::vector<Value> kept;
  for (const Value& item : items_of(input)) {
    evaluator.charge(1);
    const Value value = path.of(item);
    if ((test ? (*test)(evaluator, value, rest) : value.truth()) == kKeep) kept.push_back(item);
  }
  return generator(std::move(kept));
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable table = {
      {"attr", attribute},
      {"batch", batch},
      {"count", length},
      {"dictsort", dict_sort},
      {"first", first},
      {"groupby", group_by},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", list},
      {"map", map},
      {"max", extreme<1>},
      {"min", extreme<-1>},
      {"reject", select<false, false>},
      {"rejectattr", select<true, false>},
      {"reverse", reverse},
      {"select", select<false, true>},
      {"selectattr", select<true, true>},
      {"slice", slices},
      {"sort", sort},
      {"sum", sum},
      {"unique", unique},
  };
  return table;
}

}  // namespace lorikeet::model::jinja

// The values of templates: Python's, as far as templates see them. What a template makes of them (str(), repr(), ==, <)
// is what Python makes of them. Values do not change once made, except for namespaces.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/base/error.h"
#include "model/chat/jinja/text.h"

namespace lorikeet::model::jinja {

// Thrown inside of the interpreter and caught at its border (program.h), as Jinja's own errors are.
struct TemplateError : std::exception {
  explicit TemplateError(std::string what) : message(std::move(what)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string message;
};

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError(fmt::format(format, std::forward<Args>(args)...));
}

struct List;
struct Dict;
struct Namespace;
struct Callable;
struct LoopContext;
class Value;

struct Undefined {
  std::string why = {};  // what an error says when it is used; or
  const std::string* member =
      nullptr;  // the name, in the template, that a dict lacks: most are looked for and not used

  std::string sentence() const;
};
struct None {};
struct BigInteger {  // beyond 64 bits: printed and compared, nothing else
  std::string digits;
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, BigInteger, std::shared_ptr<const Text>,
                               std::shared_ptr<List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                               std::shared_ptr<const Callable>, std::shared_ptr<LoopContext>>;

  Value() = default;  // undefined
  template <class T>
  requires(std::is_constructible_v<Variant, T> && !std::is_same_v<T, Value>) Value(T value)
      : variant_(std::move(value)) {}
  Value(Text text) : variant_(std::make_shared<const Text>(std::move(text))) {}
  static Value own(std::string_view bytes) { return Text::own(std::string(bytes)); }
  static Value integer(size_t value) { return static_cast<int64_t>(value); }

  template <class T>
  const T* get() const {
    return std::get_if<T>(&variant_);
  }
  // Null where it is something else.
  const Text* text() const { return pointer<std::shared_ptr<const Text>>(); }
  List* list() const { return pointer<std::shared_ptr<List>>(); }
  const Dict* dict() const { return pointer<std::shared_ptr<const Dict>>(); }
  Namespace* space() const { return pointer<std::shared_ptr<Namespace>>(); }
  const Callable* callable() const { return pointer<std::shared_ptr<const Callable>>(); }
  LoopContext* loop() const { return pointer<std::shared_ptr<LoopContext>>(); }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_number() const { return get<bool>() || get<int64_t>() || get<double>() || get<BigInteger>(); }
  bool same_object(const Value& other) const;  // Python's `is`

  bool truth() const;
  std::string_view type_name() const;  // Python's

 private:
  template <class P>
  typename P::element_type* pointer() const {
    const P* held = std::get_if<P>(&variant_);
    return held ? held->get() : nullptr;
  }
  Variant variant_;
};

struct List {
  enum class Kind : uint8_t { list, tuple, range, view, generator } kind = Kind::list;
  std::vector<Value> items;
  std::string name = {};  // of a range or view: how Python prints it
};

Value make_list(std::vector<Value> items, List::Kind kind = List::Kind::list, std::string name = {});

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in the order of insertion; keys differ

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);  // while it is being made

 private:
  size_t position(const Value& key) const;  // items.size() where there is no such key
  size_t position(std::string_view key) const;

  std::unordered_map<std::string, size_t> by_text_;  // where keys are strings, and many
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Evaluator;
struct Callable {
  std::string name;
  std::function<Value(Evaluator&, const Arguments&)> call;
};

bool equal(const Value& a, const Value& b);
// Below, equal to or above 0; raises where Python has no order.
int compare(const Value& a, const Value& b);
bool is_hashable(const Value& value);

Text to_text(const Value& value);  // str()
void append_text(const Value& value, Text* out);
Text to_repr(const Value& value);
std::string float_text(double value);  // repr() of a float

}  // namespace lorikeet::model::jinja

#include "model/chat/jinja/json_text.h"

#include <algorithm>
#include <cmath>

#include "model/chat/python_json.h"

namespace lorikeet::model::jinja {
namespace {

constexpr size_t kMaxJsonNesting = 100;

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, size_t depth) {
    if (depth > kMaxJsonNesting) raise("tojson: nested deeper than {} levels", kMaxJsonNesting);
    if (const Text* text = value.text()) {
      write_string(*text);
    } else if (const List* list = value.list()) {
      if (list->kind != List::Kind::list && list->kind != List::Kind::tuple) unsupported(value);
      write_list(*list, depth);
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict, depth);
    } else {
      out_ += scalar(value);
    }
  }

  Text take() { return foreign_ ? Text::foreign(std::move(out_)) : Text::own(std::move(out_)); }

 private:
  [[noreturn]] static void unsupported(const Value& value) {
    raise("Object of type {} is not JSON serializable", value.type_name());
  }

  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const auto* flag = value.get<bool>()) return *flag ? "true" : "false";
    if (const auto* real = value.get<double>(); real && !std::isfinite(*real)) {
      return std::isnan(*real) ? "NaN" : *real < 0 ? "-Infinity" : "Infinity";
    }
    if (!value.is_number()) unsupported(value);
    return to_text(value).bytes();
  }

  void write_string(const Text& text) {
    foreign_ = foreign_ || text.has_foreign();
    append_python_json_string(text.view(), style_.ensure_ascii, &out_);
  }

  void write_list(const List& list, size_t depth) {
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      begin_item(i > 0, depth + 1);
      write(list.items[i], depth + 1);
    }
    end(list.items.empty(), ']', depth);
  }

  void write_dict(const Dict& dict, size_t depth) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto* a, const auto* b) { return compare(a->first, b->first) < 0; });
    }
    out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      begin_item(i > 0, depth + 1);
      const Value& key = items[i]->first;
      if (!key.text() && !key.is_none() && !key.is_number()) {
        raise("keys must be str, int, float, bool or None, not {}", key.type_name());
      }
      write_string(key.text() ? *key.text() : Text::own(scalar(key)));
      out_ += style_.key_separator;
      write(items[i]->second, depth + 1);
    }
    end(items.empty(), '}', depth);
  }

  void begin_item(bool follows, size_t depth) {
    if (follows) out_ += style_.item_separator;
    if (style_.has_indent) new_line(depth);
  }

  void end(bool empty, char bracket, size_t depth) {
    if (!empty && style_.has_indent) new_line(depth);
    out_ += bracket;
  }

  void new_line(size_t depth) {
    out_ += '\n';
    for (size_t i = 0; i < depth; ++i) out_ += style_.indent;
  }

  const JsonStyle& style_;
  std::string out_;
  bool foreign_ = false;
};

// Makes values of JSON as it is read.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(None{}); }
  bool boolean(bool flag) override { return add(flag); }
  bool number_integer(number_integer_t number) override { return add(int64_t{number}); }
  bool number_unsigned(number_unsigned_t number) override {
    return number > INT64_MAX ? add(BigInteger{std::to_string(number)}) : add(static_cast<int64_t>(number));
  }
  bool number_float(number_float_t number, const string_t& digits) override {
    const bool integer = digits.find_first_of(".eE") == std::string::npos;  // beyond 64 bits
    return integer ? add(BigInteger{digits}) : add(double{number});
  }
  bool string(string_t& text) override { return add(Text::foreign(std::move(text))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(std::make_shared<Dict>()); }
  bool start_array(size_t) override { return open(nullptr); }
  bool end_array() override { return close(); }
  bool end_object() override { return close(); }
  bool key(string_t& name) override {
    open_.back().key = Text::foreign(std::move(name));
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    raise("not valid JSON at byte {}", position);
  }
  Value take() { return std::move(root_); }

 private:
  struct Container {
    std::shared_ptr<Dict> dict;  // null: a list
    std::vector<Value> items;
    Text key;
  };

  bool add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().dict) {
      open_.back().dict->set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  bool open(std::shared_ptr<Dict> dict) {
    if (open_.size() == kMaxJsonNesting) raise("nested deeper than {} levels", kMaxJsonNesting);
    open_.push_back({std::move(dict), {}, {}});
    return true;
  }

  bool close() {
    Container last = std::move(open_.back());
    open_.pop_back();
    return add(last.dict ? Value(std::shared_ptr<const Dict>(std::move(last.dict))) : make_list(std::move(last.items)));
  }

  Value root_;
  std::vector<Container> open_;
};

}  // namespace

Value parse_json(std::string_view text) {
  Builder builder;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) raise("not valid JSON");
  return builder.take();
}

Value from_json(const nlohmann::ordered_json& json) {
  return parse_json(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

Text to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace lorikeet::model::jinja

#include "model/chat/python_json.h"

#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>
#include <vector>

#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;

}  // namespace

void append_python_json_string(std::string_view text, bool ensure_ascii, std::string* out) {
  *out += '"';
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
    if (const size_t letter = kEscaped.find(c); letter != std::string_view::npos) {
      *out += '\\';
      *out += kLetters[letter];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      *out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else if (ensure_ascii && (static_cast<unsigned char>(c) >= 0x80)) {
      const Utf8Head head = utf8_head(text.substr(i));
      const uint32_t point = head.valid ? head.code_point : 0xFFFD;
      *out += point < 0x10000 ? fmt::format("\\u{:04x}", point)
                              : fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((point - 0x10000) >> 10),
                                            0xDC00 + ((point - 0x10000) & 0x3FF));
      i += head.length;
      continue;
    } else {
      *out += c;
    }
    ++i;
  }
  *out += '"';
}

// The shortest digits that read back as the value, with an exponent below 1e-4 and from 1e16 on.
std::string python_float(double value) {
  char buffer[64];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

namespace {

class Writer : public nlohmann::json_sax<json> {
 public:
  bool null() override { return value("null"); }
  bool boolean(bool b) override { return value(b ? "true" : "false"); }
  bool number_integer(number_integer_t number) override { return value(fmt::format("{}", number)); }
  bool number_unsigned(number_unsigned_t number) override { return value(fmt::format("{}", number)); }
  bool binary(binary_t&) override { return stop("binary data"); }

  bool number_float(number_float_t number, const string_t& raw) override {
    // An integer too large for 64 bits comes here too; Python's have no limit.
    const bool integer = raw.find_first_of(".eE") == std::string::npos;
    return value(integer ? raw : python_float(number));
  }

  bool string(string_t& text) override {
    separate();
    append_python_json_string(text, false, &out_);
    return true;
  }

  bool start_object(size_t) override { return open('{'); }
  bool start_array(size_t) override { return open('['); }
  bool end_object() override { return close('}'); }
  bool end_array() override { return close(']'); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) return stop(fmt::format("the key \"{}\" occurs twice", name));
    separate();
    append_python_json_string(name, false, &out_);
    out_ += ": ";
    after_key_ = true;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return stop(fmt::format("not valid JSON at byte {}", position));
  }

  const std::string& error() const { return error_; }
  std::string take() { return std::move(out_); }

 private:
  struct Container {
    bool empty = true;
    std::unordered_set<std::string> keys;  // of an object
  };

  bool stop(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }

  void separate() {
    if (std::exchange(after_key_, false) || open_.empty()) return;
    if (!std::exchange(open_.back().empty, false)) out_ += ", ";
  }

  bool value(std::string_view text) {
    separate();
    out_ += text;
    return true;
  }

  bool open(char bracket) {
    if (open_.size() == kMaxDepth) return stop(fmt::format("nested deeper than {} levels", kMaxDepth));
    separate();
    out_ += bracket;
    open_.emplace_back();
    return true;
  }

  bool close(char bracket) {
    out_ += bracket;
    open_.pop_back();
    return true;
  }

  std::string out_;
  std::vector<Container> open_;
  bool after_key_ = false;
  std::string error_;
};

}  // namespace

Result<std::string> to_python_json(std::string_view text) {
  Writer writer;
  if (!json::sax_parse(text.begin(), text.end(), &writer)) return fail("{}", writer.error());
  return writer.take();
}

}  // namespace lorikeet::model

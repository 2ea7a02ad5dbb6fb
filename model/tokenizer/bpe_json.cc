#include "model/tokenizer/bpe_json.h"

#include "model/tokenizer/vocabulary.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxBpeDepth = 64;
constexpr size_t kMaxTokens = Vocabulary::kMaxId + size_t{1};
constexpr size_t kMaxMerges = 4 * kMaxTokens;
constexpr size_t kMaxTreeValues = 1'000'000;

class Handler : public nlohmann::json_sax<json> {
 public:
  explicit Handler(bool root_is_vocab) : root_is_vocab_(root_is_vocab) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool binary(binary_t&) override { return stop("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (in_ != In::vocab) return scalar(value);
    if (value > static_cast<uint64_t>(Vocabulary::kMaxId)) {
      return stop(fmt::format("the token \"{}\" has id {}, over {}", key_, value, Vocabulary::kMaxId));
    }
    if (bpe_.vocab.size() == kMaxTokens) return stop(fmt::format("more than {} tokens", kMaxTokens));
    bpe_.vocab.emplace_back(std::move(key_), static_cast<int32_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (in_ == In::merge) {
      pair_.push_back(std::move(value));
      return pair_.size() <= 2 || stop("a merge of more than two parts");
    }
    if (in_ != In::merges) return scalar(std::move(value));
    const auto [left, right] = split_merge(value);
    if (left.empty()) return stop(fmt::format("the merge \"{}\" is not two tokens with a space between", value));
    return add_merge(std::string(left), std::string(right));
  }

  bool start_object(size_t) override {
    if (in_ == In::tree && at_section("vocab", root_is_vocab_)) {
      in_ = In::vocab;
      return true;
    }
    return open(json::object());
  }

  bool start_array(size_t) override {
    if (in_ == In::tree && at_section("merges", false)) {
      in_ = In::merges;
      return true;
    }
    if (in_ == In::merges) {
      in_ = In::merge;
      pair_.clear();
      return true;
    }
    return open(json::array());
  }

  bool end_object() override {
    if (in_ == In::vocab) {
      in_ = In::tree;
      return true;
    }
    open_.pop_back();
    return true;
  }

  bool end_array() override {
    if (in_ == In::merges) {
      in_ = In::tree;
      return true;
    }
    if (in_ == In::merge) {
      in_ = In::merges;
      if (pair_.size() != 2) return stop("a merge of less than two parts");
      return add_merge(std::move(pair_[0]), std::move(pair_[1]));
    }
    open_.pop_back();
    return true;
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    if (in_ == In::vocab) return true;  // doubles are found by the vocabulary
    if (open_.back()->contains(key_)) return stop(fmt::format("the key \"{}\" occurs twice", key_));
    if (open_.size() == 1) section_parent_ = key_;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return stop(fmt::format("not valid JSON at byte {}", position));
  }

  const std::string& error() const { return error_; }
  BpeJson take() { return std::move(bpe_); }

 private:
  enum class In { tree, vocab, merges, merge };

  bool stop(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }

  // Is the container that opens now model.NAME (or, if root, the root)?
  bool at_section(std::string_view name, bool root) {
    if (root) return open_.empty();
    const bool here = open_.size() == 2 && open_.back()->is_object() && section_parent_ == "model" && key_ == name;
    if (here) (*open_.back())[key_] = true;  // so that a second one is found to be a double
    return here;
  }

  json* add(json value) {
    if (in_ != In::tree) return stop("a token's id or a merge is of the wrong type"), nullptr;
    if (++tree_values_ > kMaxTreeValues) return stop(fmt::format("more than {} values", kMaxTreeValues)), nullptr;
    if (open_.empty()) return &(bpe_.rest = std::move(value));
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool scalar(json value) { return add(std::move(value)) != nullptr; }

  bool open(json value) {
    if (open_.size() == kMaxBpeDepth) return stop(fmt::format("nested deeper than {} levels", kMaxBpeDepth));
    json* place = add(std::move(value));
    if (place) open_.push_back(place);  // stays valid: only the innermost open value grows
    return place != nullptr;
  }

  bool add_merge(std::string left, std::string right) {
    if (bpe_.merges.size() == kMaxMerges) return stop(fmt::format("more than {} merges", kMaxMerges));
    bpe_.merges.emplace_back(std::move(left), std::move(right));
    return true;
  }

  const bool root_is_vocab_;
  In in_ = In::tree;
  std::vector<json*> open_;     // the containers of the tree that are open, outermost first
  std::string key_;             // the last key read
  std::string section_parent_;  // the last key of the root object
  std::vector<std::string> pair_;
  size_t tree_values_ = 0;
  std::string error_;
  BpeJson bpe_;
};

Result<BpeJson> parse(std::string_view text, bool root_is_vocab) {
  Handler handler(root_is_vocab);
  const bool complete = json::sax_parse(text.begin(), text.end(), &handler);
  if (!complete) return fail("{}", handler.error());
  return handler.take();
}

}  // namespace

Result<BpeJson> parse_tokenizer_json_stream(std::string_view text) {
  return parse(text, false);
}

Result<BpeJson> parse_vocab_json_stream(std::string_view text) {
  auto bpe = parse(text, true);
  if (bpe && !bpe->rest.is_null()) return fail("the root is not an object of tokens and ids");
  return bpe;
}

std::pair<std::string_view, std::string_view> split_merge(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0 || space + 1 == line.size()) return {};
  const std::string_view right = line.substr(space + 1);
  if (right.find(' ') != std::string_view::npos) return {};
  return {line.substr(0, space), right};
}

}  // namespace lorikeet::model

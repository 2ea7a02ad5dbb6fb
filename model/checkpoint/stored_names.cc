#include "model/checkpoint/stored_names.h"

#include <algorithm>
#include <array>

namespace lorikeet::model {
namespace {

struct EmbeddingTable {
  std::string_view name, prefix;
};
// The embedding of either naming, and what transformers puts before it.
constexpr std::array<EmbeddingTable, 2> kTables = {{{"embed_tokens.weight", "model."}, {"wte.weight", "transformer."}}};

// What the inner model's own names begin with.
constexpr std::array<std::string_view, 7> kOwnNames = {"embed_tokens.", "layers.", "norm.", "rotary_emb.",
                                                       "wte.",          "h.",      "ln_f."};

bool begins_with(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// "model.language_model."
bool is_all_wrappers(std::string_view prefix) {
  while (!prefix.empty()) {
    const size_t dot = prefix.find('.');
    if (dot == std::string_view::npos || !is_wrapper(prefix.substr(0, dot))) return false;
    prefix.remove_prefix(dot + 1);
  }
  return true;
}

}  // namespace

bool ends_with_name(std::string_view text, std::string_view name) {
  if (text.size() < name.size() || text.substr(text.size() - name.size()) != name) return false;
  return text.size() == name.size() || text[text.size() - name.size() - 1] == '.';
}

bool is_wrapper(std::string_view segment) {
  constexpr std::array<std::string_view, 8> kWrappers = {
      "model",     "transformer", "language_model",       "base_model",
      "_orig_mod", "module",      "_fsdp_wrapped_module", "_checkpoint_wrapped_module"};
  return std::find(kWrappers.begin(), kWrappers.end(), segment) != kWrappers.end();
}

StoredNames::StoredNames(const std::vector<std::string>& names) {
  int found = 0;
  for (const std::string& name : names) {
    for (const EmbeddingTable& table : kTables) {
      if (!ends_with_name(name, table.name)) continue;
      stored_prefix_ = name.substr(0, name.size() - table.name.size());
      prefix_ = table.prefix;
      ++found;
    }
  }
  if (found == 1 && stored_prefix_ != prefix_ && is_all_wrappers(stored_prefix_)) return;
  stored_prefix_.clear();
  prefix_.clear();
}

std::string StoredNames::name_of(std::string_view stored) const {
  if (prefix_.empty()) return std::string(stored);
  const std::string_view inner = begins_with(stored, stored_prefix_) ? stored.substr(stored_prefix_.size()) : "";
  if (std::any_of(kOwnNames.begin(), kOwnNames.end(), [&](auto own) { return begins_with(inner, own); })) {
    return prefix_ + std::string(inner);
  }
  const size_t head = stored.find("lm_head.");
  if (head != std::string_view::npos && is_all_wrappers(stored.substr(0, head)))
    return std::string(stored.substr(head));
  return std::string(stored);
}

}  // namespace lorikeet::model

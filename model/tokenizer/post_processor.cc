#include "model/tokenizer/post_processor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "model/tokenizer/json_values.h"
#include "model/tokenizer/vocabulary.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMaxFrame = 64;  // ids on either side
constexpr int kMaxNesting = 8;

Result<int32_t> token_id(const json& id, const std::string& where) {
  if (!id.is_number_integer() || id < 0 || id > Vocabulary::kMaxId) {
    return fail("post_processor: {} is {}, not a token id", where, brief(id));
  }
  return id.get<int32_t>();
}

// The ids that a template means by the name of a special token.
Result<std::vector<int32_t>> ids_of_special(const json& special_tokens, const json& name) {
  if (!name.is_string()) return fail("post_processor: a special token of its template is {}", brief(name));
  const json& ids = member(member(special_tokens, name.get_ref<const std::string&>().c_str()), "ids");
  if (!ids.is_array()) return fail("post_processor: special_tokens has no ids for {}", brief(name));
  std::vector<int32_t> result;
  for (const json& id : ids) {
    auto one = token_id(id, "an id of " + brief(name));
    if (!one) return tl::unexpected(one.error());
    result.push_back(*one);
  }
  return result;
}

Result<PromptFrame> parse_template(const json& processor) {
  const json& pieces = member(processor, "single");
  if (!pieces.is_array()) return fail("post_processor is \"TemplateProcessing\" without an array `single`");
  PromptFrame frame;
  bool text_seen = false;
  for (const json& piece : pieces) {
    if (const json& sequence = member(piece, "Sequence"); !sequence.is_null()) {
      if (member(sequence, "id") != "A" || text_seen) {
        return fail("post_processor: TemplateProcessing's `single` does not have the text exactly once");
      }
      text_seen = true;
      continue;
    }
    auto ids = ids_of_special(member(processor, "special_tokens"), member(member(piece, "SpecialToken"), "id"));
    if (!ids) return tl::unexpected(ids.error());
    std::vector<int32_t>& side = text_seen ? frame.suffix : frame.prefix;
    side.insert(side.end(), ids->begin(), ids->end());
  }
  if (!text_seen) return fail("post_processor: TemplateProcessing's `single` does not have the text exactly once");
  return frame;
}

// BERT's and RoBERTa's: ["token", id] in front and behind.
Result<PromptFrame> parse_pair(const json& processor) {
  PromptFrame frame;
  const std::pair<const char*, std::vector<int32_t>*> sides[] = {{"cls", &frame.prefix}, {"sep", &frame.suffix}};
  for (const auto& [key, side] : sides) {
    const json& token = member(processor, key);
    if (!token.is_array() || token.size() != 2) return fail("post_processor: {} is not a token and its id", key);
    auto id = token_id(token[1], key);
    if (!id) return tl::unexpected(id.error());
    side->push_back(*id);
  }
  return frame;
}

Result<PromptFrame> parse(const json& processor, int nesting) {
  const json& type = member(processor, "type");
  if (processor.is_null() || type == "ByteLevel") return PromptFrame{};
  if (type == "TemplateProcessing") return parse_template(processor);
  if (type == "BertProcessing" || type == "RobertaProcessing") return parse_pair(processor);
  const json& steps = member(processor, "processors");
  if (type != "Sequence" || !steps.is_array() || nesting == kMaxNesting) {
    return fail(
        "post_processor is {}; only ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing, a Sequence of "
        "them and none are served",
        brief(type));
  }
  PromptFrame frame;
  for (const json& step : steps) {
    auto next = parse(step, nesting + 1);
    if (!next) return next;
    if (next->prefix.empty() && next->suffix.empty()) continue;
    if (!frame.prefix.empty() || !frame.suffix.empty()) {
      return fail("post_processor: a Sequence in which more than one processor adds tokens is not served");
    }
    frame = *std::move(next);
  }
  return frame;
}

}  // namespace

Result<PromptFrame> parse_post_processor(const json& post_processor) {
  auto frame = parse(post_processor, 0);
  if (frame && std::max(frame->prefix.size(), frame->suffix.size()) > kMaxFrame) {
    return fail("post_processor: more than {} ids around a text", kMaxFrame);
  }
  return frame;
}

}  // namespace lorikeet::model

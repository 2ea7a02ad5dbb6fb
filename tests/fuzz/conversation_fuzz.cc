// A conversation from a client, shown by a template that many checkpoints have: refused with a sentence, or a prompt
// whose special tokens are the template's own. The first byte picks the template.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/chat_template.h"
#include "model/chat/conversation_json.h"
#include "model/chat/known_templates.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet;
using fuzz::require;
using fuzz::succeeded;

constexpr const char* kModel = LORIKEET_SOURCE_DIR "/examples/models/tiny-qwen2-gptq-int4";

struct Known {
  std::shared_ptr<const model::Tokenizer> tokenizer = *model::Tokenizer::load(kModel);
  std::vector<model::ChatTemplate> templates;
  Known() {
    for (const auto& known : model::known_templates()) {
      auto loaded = model::ChatTemplate::load(kModel, *tokenizer, known.name);
      if (loaded) templates.push_back(*std::move(loaded));
    }
    require(!templates.empty());
  }
};

size_t specials(const model::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  size_t count = 0;
  for (const int32_t id : ids) count += tokenizer.is_special(id) ? 1 : 0;
  return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Known known;
  if (size == 0) return 0;
  const auto conversation = model::parse_conversation({reinterpret_cast<const char*>(data + 1), size - 1});
  if (!succeeded(conversation)) return 0;
  const auto& [messages, options] = *conversation;
  const model::ChatTemplate& chat = known.templates[data[0] % known.templates.size()];
  const auto ids = chat.render(messages, *known.tokenizer, options);
  const auto text = chat.render_text(messages, options);
  const auto parts = chat.render_parts(messages, options);
  require(text.has_value() == parts.has_value());
  if (!succeeded(ids) || !text) return 0;
  std::string whole, own;
  size_t expected = 0;
  for (const model::PromptPart& part : *parts) {
    whole += part.text;
    if (part.own_words) {
      own += part.text;
    } else if (!part.text.empty()) {
      expected += specials(*known.tokenizer, known.tokenizer->encode(own, true));
      own.clear();
    }
  }
  expected += specials(*known.tokenizer, known.tokenizer->encode(own, true));
  require(whole == *text);
  require(specials(*known.tokenizer, *ids) == expected);
  return 0;
}

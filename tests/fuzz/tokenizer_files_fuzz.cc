// The files of a tokenizer and its chat template, from anyone: refused with a sentence, or a tokenizer that encodes,
// decodes and streams without complaint. The first byte says which files there are, the rest is their text in order.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/chat_template.h"
#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet;
using fuzz::require;
using fuzz::succeeded;

constexpr std::array kFiles = {
    "tokenizer.json",    "vocab.json",         "merges.txt",          "qwen.tiktoken",          "tokenizer_config.json",
    "added_tokens.json", "chat_template.json", "chat_template.jinja", "special_tokens_map.json"};

void use(std::shared_ptr<const model::Tokenizer> tokenizer) {
  std::vector<std::string> texts = {"ab", " the whale's 7\n\n e\u0301", std::string(100, 'a'), "\xFF\xC3"};
  for (const auto& [role, token] : tokenizer->named_tokens()) texts.push_back("a " + token + "  " + token);
  for (const std::string& text : texts) {
    const std::vector<int32_t> ids = tokenizer->encode_prompt(text);
    for (const bool skip : {false, true}) {
      model::Detokenizer detokenizer(tokenizer, skip);
      std::string streamed;
      for (const int32_t id : ids) streamed += detokenizer.push(id);
      require(streamed + detokenizer.flush() == tokenizer->decode(ids, skip));
    }
    for (const int32_t id : ids) require(id >= 0 && id < tokenizer->vocab_size() && !tokenizer->bytes_of(id).empty());
  }
  require(tokenizer->eos_id() < tokenizer->vocab_size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto texts = fuzz::split({reinterpret_cast<const char*>(data + 1), size - 1});
  // The vocabulary is in one of three places; of what is beside it a bit each.
  const unsigned vocabulary = data[0] % 4, others = data[0] / 4;
  size_t next = 0;
  for (size_t i = 0; i < kFiles.size(); ++i) {
    const bool there = i == 0   ? vocabulary == 0
                       : i < 3  ? vocabulary == 1
                       : i == 3 ? vocabulary >= 2
                                : (others >> (i - 4) & 1) != 0;
    fuzz::put(kFiles[i], there && next < texts.size() ? &texts[next++] : nullptr);
  }
  const auto tokenizer = model::Tokenizer::load(fuzz::scratch());
  if (!succeeded(tokenizer)) return 0;
  use(*tokenizer);
  const auto chat = model::ChatTemplate::load(fuzz::scratch(), **tokenizer);
  if (succeeded(chat)) (void)succeeded(chat->render({{"user", "Hi <|im_end|>"}}, **tokenizer));
  return 0;
}

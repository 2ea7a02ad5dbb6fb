#include "comm/openai/tokenize.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "comm/openai/body_reader.h"
#include "comm/openai/chat_fields.h"
#include "comm/openai/json_text.h"

namespace lorikeet::comm {
namespace {

using Json = nlohmann::ordered_json;

tl::expected<TokenizeRequest, OpenAiError> read_tokenize(BodyReader& body) {
  TokenizeRequest request;
  request.model = body.text("model");
  request.with_texts = body.boolean("return_token_strs");
  if (!body.value("add_special_tokens").is_null()) {
    request.text.add_special_tokens = body.boolean("add_special_tokens");
  }
  if (body.value("messages").is_null()) {
    request.text.prompt = body.text("prompt");
    if (!request.text.prompt) body.refuse("prompt", "prompt or messages is needed");
    body.ignore({"messages", "add_generation_prompt"});
  } else {
    read_chat_fields(body, request.text);
    body.refuse_unless_neutral("prompt");
  }
  if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  return request;
}

tl::expected<DetokenizeRequest, OpenAiError> read_detokenize(BodyReader& body) {
  DetokenizeRequest request;
  request.model = body.text("model");
  if (body.value("tokens").is_null()) body.refuse("tokens", "tokens is missing");
  request.tokens = body.integers("tokens");
  if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  return request;
}

}  // namespace

tl::expected<TokenizeRequest, OpenAiError> parse_tokenize(std::string_view text) {
  BodyReader body(text);
  return read_tokenize(body);
}

tl::expected<DetokenizeRequest, OpenAiError> parse_detokenize(std::string_view text) {
  BodyReader body(text);
  return read_detokenize(body);
}

std::set<std::string, std::less<>> fields_of_tokenize() {
  BodyReader text("{}"), chat(R"({"messages": [{"role": "user"}]})");
  for (BodyReader* body : {&text, &chat}) static_cast<void>(read_tokenize(*body));
  auto names = text.known();
  names.insert(chat.known().begin(), chat.known().end());
  return names;
}

std::set<std::string, std::less<>> fields_of_detokenize() {
  BodyReader body("{}");
  static_cast<void>(read_detokenize(body));
  return body.known();
}

std::string tokenize_answer(const std::vector<int32_t>& ids, int32_t max_model_len, bool with_texts,
                            const std::function<std::string_view(int32_t)>& token_bytes) {
  Json texts;
  if (with_texts) {
    texts = Json::array();
    for (const int32_t id : ids) texts.push_back(token_bytes(id));
  }
  return to_text(
      {{"count", ids.size()}, {"max_model_len", max_model_len}, {"tokens", ids}, {"token_strs", std::move(texts)}});
}

std::string detokenize_answer(const std::string& text) {
  return to_text({{"prompt", text}});
}

}  // namespace lorikeet::comm

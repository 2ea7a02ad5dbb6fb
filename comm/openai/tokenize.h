// The bodies and answers of /tokenize and /detokenize, as vLLM has them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/openai/openai_error.h"

namespace lorikeet::comm {

struct TokenizeRequest {
  std::optional<std::string> model;  // as it was named; absent: the base model
  GenerateRequest text;              // its prompt or its messages; nothing else is set
  bool with_texts = false;           // of each token
};
struct DetokenizeRequest {
  std::optional<std::string> model;
  std::vector<int32_t> tokens;
};

tl::expected<TokenizeRequest, OpenAiError> parse_tokenize(std::string_view body);
tl::expected<DetokenizeRequest, OpenAiError> parse_detokenize(std::string_view body);

// The names that their bodies may have.
std::set<std::string, std::less<>> fields_of_tokenize();
std::set<std::string, std::less<>> fields_of_detokenize();

std::string tokenize_answer(const std::vector<int32_t>& ids, int32_t max_model_len, bool with_texts,
                            const std::function<std::string_view(int32_t)>& token_bytes);
std::string detokenize_answer(const std::string& text);

}  // namespace lorikeet::comm

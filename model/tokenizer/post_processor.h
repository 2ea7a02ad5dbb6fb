// What a tokenizer puts around a prompt: the begin token of DeepSeek's distillations, say. Sources: the serialisation
// of huggingface/tokenizers (processors); transformers' update_post_processor for add_bos_token and add_eos_token.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Ids before and after those of one text.
struct PromptFrame {
  std::vector<int32_t> prefix, suffix;
};

// tokenizer.json's post_processor: null, ByteLevel (which changes offsets alone), TemplateProcessing (its template of
// one text), BertProcessing, RobertaProcessing, and Sequences of them. Anything else is refused by name.
Result<PromptFrame> parse_post_processor(const nlohmann::json& post_processor);

}  // namespace lorikeet::model

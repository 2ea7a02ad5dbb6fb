// Reads a tokenizer's files as checkpoints ship them, and refuses what this tokenizer does not implement. Sources: the
// serialisation of huggingface/tokenizers; transformers' tokenization_qwen2.py; Qwen v1's tokenization_qwen.py.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/post_processor.h"
#include "model/tokenizer/vocabulary.h"

namespace lorikeet::model {

struct TokenizerFiles {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::vector<Merge> merges;
  std::vector<AddedToken>
      added_tokens;  // ids and contents differ from each other; a token of the vocabulary may be among them
  bool nfc = true;   // text is normalised before it is cut
  bool whole_piece_first = false;
  PromptFrame frame;                                // ids that belong around a prompt
  std::map<std::string, std::string> named_tokens;  // "eos_token" -> "<|im_end|>", as tokenizer_config.json names them
};

// DIR/tokenizer.json, or DIR/vocab.json + DIR/merges.txt, or DIR/qwen.tiktoken; the first that is there. With the first
// two, what DIR/tokenizer_config.json, special_tokens_map.json and added_tokens.json say joins.
Result<TokenizerFiles> read_tokenizer_files(const std::filesystem::path& dir);

// The contents of the files; sentences of errors do not name the file, the callers above do.
Result<TokenizerFiles> parse_tokenizer_json(std::string_view json);
Result<TokenizerFiles> parse_vocab_and_merges(std::string_view vocab_json, std::string_view merges_txt);
Result<TokenizerFiles> parse_tiktoken(std::string_view lines);
Result<void> join_added_tokens_decoder(std::string_view tokenizer_config_json, TokenizerFiles* files);

}  // namespace lorikeet::model

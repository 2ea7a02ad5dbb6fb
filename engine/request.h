// What a client wants of the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/ids.h"
#include "engine/sampling_params.h"

namespace lorikeet::engine {

struct Request {
  SequenceId id;
  std::vector<int32_t> prompt;  // 1 .. max_model_len - 1 token ids
  std::string adapter;          // digest of the adapter's content; empty: the base model
  uint64_t cache_salt = 0;      // prefix blocks are shared only between requests of the same salt
  SamplingParams sampling;
  bool max_tokens_may_shrink = false;  // to what the KV pool holds; else a request that does not fit is refused
};

enum class FinishReason : uint8_t { stop, length, abort };

}  // namespace lorikeet::engine

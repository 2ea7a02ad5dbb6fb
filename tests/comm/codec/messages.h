// One filled specimen of every message that crosses the client protocol, and comparison by their fields.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/client/frames.h"
#include "comm/codec/codec.h"

namespace lorikeet::comm {

inline GenerateRequest full_request() {
  GenerateRequest request;
  request.id = "r-1";
  request.prompt = "Once upon a time\n\"\\ \xE2\x82\xAC";
  request.prompt_token_ids = {0, 1, 151643};
  request.messages = {{"system", "Be brief."}, {"user", "Hello"}};
  request.adapter = "kjv";
  request.max_tokens = 64;
  request.temperature = 0.7;
  request.top_p = 0.9;
  request.min_p = 0.05;
  request.repetition_penalty = 1.1;
  request.presence_penalty = -0.5;
  request.frequency_penalty = 0.25;
  request.top_k = 50;
  request.seed = 0xFFFFFFFFFFFFFFFF;
  request.stop = {"\n\n", "END"};
  request.stop_token_ids = {7, 8};
  request.logprobs = 5;
  request.prompt_logprobs = true;
  request.ignore_eos = true;
  request.include_stop_str_in_output = true;
  request.skip_special_tokens = false;
  request.logit_bias = {{0, -100}, {151643, 0.1}};
  request.min_tokens = 3;
  request.bad_words = {"whale", "a b"};
  request.allowed_token_ids = {5, 6};
  request.truncate_prompt_tokens = -1;
  request.add_special_tokens = false;
  request.cache_salt = "tenant";
  request.timeout = 0.25;
  request.return_token_ids = true;
  request.prompt_top_logprobs = 2;
  return request;
}

inline std::vector<ClientFrame> client_messages() {
  GenerateRequest small;
  small.id = "small";
  small.prompt = "";
  return {full_request(),
          small,
          Cancel{"r-1"},
          StatusRequest{"s"},
          StatusRequest{"t", true},
          ResetPrefixCacheRequest{"r"},
          AdapterRequest{"l", "load", "moby", "/adapters/moby", true},
          AdapterRequest{"a", "list", std::nullopt, std::nullopt, false},
          ClientHeartbeat{}};
}

inline std::vector<ServerFrame> server_messages() {
  Delta delta{"r-1", "wor\xC3\xA9", {1, 2}, {{{1, -0.1F}, {9, -2.5F}}, {{2, -1e-30F}}}};
  Delta scored{"r-4", "", {}, {}};
  scored.index = 2;
  scored.prompt = PromptScores{{std::nullopt, -0.5F}, {0, 3}, {{}, {{7, -0.25F}}}};
  Done done{"r-1",        "stop",    "END",     {std::nullopt, -0.25F, -17.F},   0x8000000000000001,
            {3, 4, 7, 2}, {5, 6, 7}, {0, 1, 9}, {{}, {{6, -0.25F}}, {{1, -1.F}}}};
  return {delta,
          Delta{"r-2", "", {}, {}},
          scored,
          done,
          Done{"r-2", "length", std::nullopt, {}, 0, {}, {}, {}, {}},
          Done{"r-3", "stop", 2045, {}, 0, {}, {}, {}, {}},
          Failure{"r-3", "unknown_adapter", "no adapter named \"x\""},
          StatusReply{"s", R"({"ranks":[]})"},
          PrefixCacheReset{"r"},
          AdapterReply{"l", "Success", std::nullopt},
          AdapterReply{"a", "", R"({"adapters":[]})"},
          Heartbeat{"0123-4", 2000}};
}

// The encoding shows every bit of every field.
template <class Variant>
bool same(const Variant& a, const Variant& b) {
  return a.index() == b.index() && std::visit(
                                       [&b](const auto& message) {
                                         using Alternative = std::remove_cvref_t<decltype(message)>;
                                         return encode(message) == encode(std::get<Alternative>(b));
                                       },
                                       a);
}

}  // namespace lorikeet::comm

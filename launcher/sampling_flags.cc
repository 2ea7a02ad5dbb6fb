#include "launcher/sampling_flags.h"

#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "launcher/flag_values.h"

namespace lorikeet::launcher {
namespace {

void take_biases(const std::vector<std::string>& texts, comm::GenerateRequest& request) {
  for (const std::string& text : texts) {
    const char* end = text.data() + text.size();
    std::pair<int32_t, double> bias;
    auto parsed = std::from_chars(text.data(), end, bias.first);
    if (parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '=') {
      parsed = std::from_chars(parsed.ptr + 1, end, bias.second);
      if (parsed.ec == std::errc() && parsed.ptr == end) {
        request.logit_bias.push_back(bias);
        continue;
      }
    }
    throw CLI::ValidationError("--logit-bias", text + " is no ID=BIAS, such as 15=-100");
  }
}

}  // namespace

void add_sampling_flags(CLI::App& app, comm::GenerateRequest& request) {
  const std::string group = "Sampling (the model's defaults where a flag is absent)";
  request.max_tokens = kDefaultAnswerTokens;
  app.add_option("--max-tokens", request.max_tokens, "Tokens to generate at the most")
      ->check(count_from(1))
      ->default_str(std::to_string(kDefaultAnswerTokens))
      ->group(group);
  app.add_option("--temperature", request.temperature, "0 is greedy")->group(group);
  app.add_option("--top-p", request.top_p, "Smallest set of tokens with this much probability")->group(group);
  app.add_option("--top-k", request.top_k, "The k best tokens; 0 is all")->group(group);
  app.add_option("--min-p", request.min_p, "Least probability, relative to the best token's")->group(group);
  app.add_option("--repetition-penalty", request.repetition_penalty, "Divides the logits of tokens seen; 1 is none")
      ->group(group);
  app.add_option("--presence-penalty", request.presence_penalty, "Subtracted once from tokens generated")->group(group);
  app.add_option("--frequency-penalty", request.frequency_penalty, "Subtracted as often as a token was generated")
      ->group(group);
  app.add_option("--seed", request.seed, "Of the draws; the answer reports the one used")
      ->check(whole_number())
      ->group(group);
  app.add_option("--stop", request.stop, "A string that ends the answer; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  add_token_ids(
      app, "--stop-token-ids",
      [&request](const std::vector<int32_t>& ids) {
        request.stop_token_ids.insert(request.stop_token_ids.end(), ids.begin(), ids.end());
      },
      "Token ids that end the answer; may be repeated")
      ->group(group);
  app.add_option("--min-tokens", request.min_tokens, "Neither end nor stop before so many tokens")->group(group);
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias", [&request](const auto& texts) { take_biases(texts, request); },
         "ID=BIAS: what is added to a token's logit; may be repeated")
      ->type_name("ID=BIAS")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--bad-words", request.bad_words, "A string that is not generated; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  add_token_ids(
      app, "--allowed-token-ids",
      [&request](const std::vector<int32_t>& ids) {
        if (!request.allowed_token_ids) request.allowed_token_ids.emplace();
        request.allowed_token_ids->insert(request.allowed_token_ids->end(), ids.begin(), ids.end());
      },
      "Token ids that may be drawn, no others; may be repeated")
      ->group(group);
  app.add_option("--truncate-prompt-tokens", request.truncate_prompt_tokens, "Of the prompt, the last so many tokens")
      ->group(group);
  app.add_option("--cache-salt", request.cache_salt, "Cached prefixes are shared within one salt")->group(group);
  app.add_option("--timeout", request.timeout, "Seconds after which the request ends")->group(group);
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on past the end-of-text token")->group(group);
}

}  // namespace lorikeet::launcher

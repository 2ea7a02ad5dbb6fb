#include "launcher/sampling_flags.h"

#include <string>

#include "launcher/flag_values.h"

namespace lorikeet::launcher {

void add_sampling_flags(CLI::App& app, comm::GenerateRequest& request) {
  const std::string group = "Sampling (the model's defaults where a flag is absent)";
  request.max_tokens = kDefaultAnswerTokens;
  app.add_option("--max-tokens", request.max_tokens, "Tokens to generate at the most")
      ->check(CLI::PositiveNumber)
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
  app.add_flag("--ignore-eos", request.ignore_eos, "Go on past the end-of-text token")->group(group);
}

}  // namespace lorikeet::launcher

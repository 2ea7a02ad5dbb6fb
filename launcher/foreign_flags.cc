#include "launcher/foreign_flags.h"

namespace lorikeet::launcher {
namespace {

struct ForeignFlag {
  const char* name;
  bool takes_value;
  bool harmless;
  const char* sentence;
};

constexpr ForeignFlag kForeignFlags[] = {
    {"--enforce-eager", false, true, "CUDA graphs take adapters as data, there is no eager mode to ask for"},
    {"--swap-space", true, true, "sequences that are preempted are recomputed, never swapped"},
    {"--trust-remote-code", false, true, "no code is ever loaded from a checkpoint"},
    {"--fully-sharded-loras", false, true, "adapters are always cut so that they add no communication"},
    {"--lora-dtype", true, true, "adapters are kept in the dtype of the activations"},
    {"--max-logprobs", true, true, "log-probabilities are bounded at 20 for each token, as in OpenAI's interface"},
    {"--max-seq-len-to-capture", true, true, "graphs serve every length"},
    {"--enable-chunked-prefill", false, true, "long prompts always go in chunks"},
    {"--no-enable-chunked-prefill", false, true, "long prompts always go in chunks"},
    {"--disable-log-stats", false, true, "statistics are read with `lorikeet status`"},
    {"--tokenizer-mode", true, true, "there is one tokenizer, as fast as vLLM's fast one"},
    {"--distributed-executor-backend", true, true, "ranks are always processes of their own"},
    {"--disable-custom-all-reduce", false, true, "the all-reduce is chosen by size"},
    {"--guided-decoding-backend", true, true, "nothing depends on it"},
    {"--async-scheduling", false, true, "steps are always planned while the one before runs"},
    {"--compilation-config", true, true, "nothing is compiled at start"},
    {"--max-parallel-loading-workers", true, true, "ranks load side by side"},
    {"--limit-mm-per-prompt", true, true, "models of text alone are served"},
    {"--enable-prompt-tokens-details", false, true, "usage always says how many tokens were cached"},
    {"--disable-frontend-multiprocessing", false, true, "the processes are always the same"},
    {"--disable-uvicorn-access-log", false, true, "there is none; --disable-log-requests leaves requests out"},
    {"--uvicorn-log-level", true, true, "there is no uvicorn; --log-level says what is logged"},
    {"--disable-fastapi-docs", false, true, "there are none; /openapi.json describes the API"},
    {"--pipeline-parallel-size", true, false,
     "the model is cut by tensor parallelism only; use --tensor-parallel-size"},
    {"--data-parallel-size", true, false, "start one server for each replica"},
    {"--cpu-offload-gb", true, false, "weights stay on the device; use more ranks"},
    {"--tokenizer", true, false, "the tokenizer is read from the checkpoint's directory"},
    {"--hf-overrides", true, false, "the configuration is what config.json says"},
    {"--enable-sleep-mode", false, false, "there is none; stop the server and start it again"},
    {"--revision", true, false, "models are local directories; download the revision that you want"},
    {"--speculative-config", true, false, "there is no speculative decoding"},
    {"--return-tokens-as-token-ids", false, false, "requests ask for it: return_tokens_as_token_ids"},
    {"--lora-extra-vocab-size", true, false, "adapters that add tokens are refused"},
};

}  // namespace

void add_foreign_flags(CLI::App& app, ForeignFlags& given) {
  for (const ForeignFlag& flag : kForeignFlags) {
    std::vector<std::string>& list = flag.harmless ? given.harmless : given.refused;
    const std::string sentence = std::string(flag.name) + ": " + flag.sentence;
    if (flag.takes_value) {
      app.add_option_function<std::string>(flag.name,
                                           [&list, sentence](const std::string&) { list.push_back(sentence); })
          ->group("");
    } else {
      app.add_flag_function(flag.name, [&list, sentence](int64_t) { list.push_back(sentence); })->group("");
    }
  }
}

}  // namespace lorikeet::launcher

#include "launcher/foreign_flags.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace lorikeet::launcher {
namespace {

struct ForeignFlag {
  const char* name;
  bool takes_value;
  bool harmless;
  const char* sentence;
  const char* only = nullptr;  // harmless with this value alone
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
    {"--optimization-level", true, true, "nothing is compiled at start"},
    {"--api-server-count", true, true, "one HTTP door takes all clients"},
    {"--attention-backend", true, true, "attention's kernels are chosen by the shapes"},
    {"--enable-log-outputs", false, true, "answers are in no log"},
    {"--max-log-len", true, true, "prompts are in no log"},
    {"--enable-request-id-headers", false, true, "every answer has its X-Request-Id"},
    {"--enable-server-load-tracking", false, true, "/load always counts"},
    {"--disable-cascade-attn", false, true, "there is none"},
    {"--disable-sliding-window", false, true, "there is none"},
    {"--enable-expert-parallel", false, true, "models without experts are served"},
    {"--prefix-caching-hash-algo", true, true, "nothing depends on it"},
    {"--use-tqdm-on-load", false, true, "loading is shown where it is a terminal"},
    {"--no-use-tqdm-on-load", false, true, "loading is shown where it is a terminal"},
    {"--no-async-scheduling", false, true, "steps are always planned while the one before runs"},
    {"--disable-async-output-proc", false, true, "steps are always planned while the one before runs"},
    {"--num-scheduler-steps", true, true, "steps are always planned while the one before runs"},
    {"--use-v2-block-manager", false, true, "there is one way to keep KV blocks"},
    {"--preemption-mode", true, true, "sequences that are preempted are recomputed, never swapped"},
    {"--scheduler-delay-factor", true, true, "prompts begin as soon as there is room"},
    {"--max-num-partial-prefills", true, true, "prompts share what --max-num-batched-tokens leaves of a step"},
    {"--max-long-partial-prefills", true, true, "prompts share what --max-num-batched-tokens leaves of a step"},
    {"--long-prefill-token-threshold", true, true, "prompts share what --max-num-batched-tokens leaves of a step"},
    {"--max-cudagraph-capture-size", true, true, "graphs serve every size of batch"},
    {"--calculate-kv-scales", false, true, "keys and values in fp8 have a scale for each token"},
    {"--structured-outputs-config", true, true, "nothing depends on it"},
    {"--safetensors-load-strategy", true, true, "ranks read their parts of the files"},
    {"--model-loader-extra-config", true, true, "ranks read their parts of the files"},
    {"--download-dir", true, true, "nothing is downloaded; the Hugging Face cache is where HF_HOME says"},
    {"--hf-token", true, true, "nothing is downloaded"},
    {"--code-revision", true, true, "no code is ever loaded from a checkpoint"},
    {"--mm-processor-kwargs", true, true, "models of text alone are served"},
    {"--mm-processor-cache-gb", true, true, "models of text alone are served"},
    {"--disable-mm-preprocessor-cache", false, true, "models of text alone are served"},
    {"--language-model-only", false, true, "models of text alone are served"},
    {"--disable-hybrid-kv-cache-manager", false, true, "all layers have the same KV cache"},
    {"--show-hidden-metrics-for-version", true, true, "no metric is hidden"},
    {"--scheduling-policy", true, false, "requests are served in the order in which they came", "fcfs"},
    {"--logprobs-mode", true, false, "log-probabilities are the model's own, before sampling changes them",
     "raw_logprobs"},
    {"--generation-config", true, false,
     "what requests do not say is as the checkpoint's generation_config.json has it; say it in the requests", "auto"},
    {"--override-generation-config", true, false,
     "requests say how they are sampled, else generation_config.json does"},
    {"--response-role", true, false, "answers have the role assistant", "assistant"},
    {"--model-impl", true, false, "there is one way to compute each model", "auto"},
    {"--config-format", true, false, "config.json is read", "auto"},
    {"--stream-interval", true, false, "every token is sent as it comes", "1"},
    {"--runner", true, false, "models that generate are served", "generate"},
    {"--task", true, false, "models that generate are served", "generate"},
    {"--pipeline-parallel-size", true, false,
     "the model is cut by tensor parallelism only; use --tensor-parallel-size"},
    {"--data-parallel-size", true, false, "start one server for each replica"},
    {"--data-parallel-size-local", true, false, "start one server for each replica"},
    {"--data-parallel-address", true, false, "start one server for each replica"},
    {"--node-rank", true, false, "other hosts run `lorikeet worker --join`"},
    {"--headless", false, false, "other hosts run `lorikeet worker --join`"},
    {"--enable-force-include-usage", false, false, "a stream has its usage where stream_options asks for it"},
    {"--uds", true, false, "the HTTP door is at --host and --port; --zmq takes ipc://PATH"},
    {"--cpu-offload-gb", true, false, "weights stay on the device; use more ranks"},
    {"--tokenizer", true, false, "the tokenizer is read from the checkpoint's directory"},
    {"--hf-overrides", true, false, "the configuration is what config.json says"},
    {"--enable-sleep-mode", false, false, "there is none; stop the server and start it again"},
    {"--revision", true, false, "models are local directories; download the revision that you want"},
    {"--speculative-config", true, false, "there is no speculative decoding"},
    {"--return-tokens-as-token-ids", false, false, "requests ask for it: return_tokens_as_token_ids"},
    {"--tokenizer-revision", true, false, "the tokenizer is read from the checkpoint's directory"},
    {"--hf-config-path", true, false, "the configuration is what the checkpoint's config.json says"},
    {"--rope-scaling", true, false, "it is what config.json says"},
    {"--rope-theta", true, false, "it is what config.json says"},
    {"--num-gpu-blocks-override", true, false, "--kv-cache-memory-bytes says how large the KV cache is"},
    {"--kv-transfer-config", true, false, "KV blocks stay with the server"},
    {"--kv-events-config", true, false, "the KV cache's changes are not published"},
    {"--otlp-traces-endpoint", true, false, "there are no traces; /metrics and the log have each request's times"},
    {"--enable-prompt-embeds", false, false, "prompts are text or token ids"},
    {"--tool-parser-plugin", true, false, "no code of others is loaded; --tool-call-parser names what there is"},
    {"--exclude-tools-when-tool-choice-none", false, false, "leave the tools out of the request"},
    {"--middleware", true, false, "no code of others is loaded"},
    {"--enable-lora-bias", false, false, "biases of lora_B are not served"},
    {"--long-lora-scaling-factors", true, false, "the context is what config.json says for all adapters"},
    {"--lora-extra-vocab-size", true, false, "adapters that add tokens are refused"},
};

// Short forms of several letters, for which the parser has no room.
constexpr std::pair<std::string_view, const char*> kShortForms[] = {
    {"-tp", "--tensor-parallel-size"},
    {"-pp", "--pipeline-parallel-size"},
    {"-dp", "--data-parallel-size"},
    {"-dpl", "--data-parallel-size-local"},
    {"-dpa", "--data-parallel-address"},
    {"-ep", "--enable-expert-parallel"},
    {"-cc", "--compilation-config"},
    {"-asc", "--api-server-count"},
    {"-n", "--nnodes"},
    {"-r", "--node-rank"},
};

constexpr std::string_view kOptimization = "-O", kOptimizationLevel = "--optimization-level",
                           kCompilation = "--compilation-config";

// What the name of a flag stands for; itself where that is nothing else.
std::string long_form(std::string_view name) {
  for (const auto& [brief, whole] : kShortForms) {
    if (name == brief) return whole;
  }
  std::string dashed(name);
  if (name.starts_with("--")) std::replace(dashed.begin(), dashed.end(), '_', '-');
  return dashed;
}

// Lists the flag's sentence where it belongs for the value that was given.
void list(const ForeignFlag& flag, const std::string& value, ForeignFlags& given) {
  const bool fits = flag.only != nullptr && value == flag.only;
  const std::string shown = flag.only == nullptr ? flag.name : std::string(flag.name) + " " + value;
  (flag.harmless || fits ? given.harmless : given.refused).push_back(shown + ": " + flag.sentence);
}

}  // namespace

void add_foreign_flags(CLI::App& app, ForeignFlags& given) {
  for (const ForeignFlag& flag : kForeignFlags) {
    if (flag.takes_value) {
      app.add_option_function<std::string>(
             flag.name, [flag = &flag, &given](const std::string& value) { list(*flag, value, given); })
          ->take_last()
          ->group("");
    } else {
      app.add_flag_function(flag.name, [flag = &flag, &given](int64_t) { list(*flag, "", given); })->group("");
    }
  }
}

std::vector<std::string> spelt_out(const CLI::App& command, const std::vector<std::string>& words) {
  const auto has = [&command](const std::string& flag) { return command.get_option_no_throw(flag) != nullptr; };
  std::vector<std::string> result;
  bool flags_end = false;
  for (const std::string& word : words) {
    flags_end = flags_end || word == "--";
    const size_t equals = std::min(word.find('='), word.size());
    const std::string name = word.substr(0, equals), whole = long_form(name);
    const size_t dot = std::min(name.find('.'), name.size());
    if (flags_end || word.size() < 2 || word.front() != '-') {
      result.push_back(word);
    } else if (whole != name && !has(name) && has(whole)) {
      result.push_back(whole + word.substr(equals));
    } else if (word.starts_with(kOptimization) && has(std::string(kOptimizationLevel))) {  // -O3, -O.mode=3, -O 3
      result.emplace_back(kOptimizationLevel);
      if (word.size() > kOptimization.size()) result.push_back(word.substr(kOptimization.size()));
    } else if (dot < name.size() && long_form(name.substr(0, dot)) == kCompilation && has(std::string(kCompilation))) {
      result.emplace_back(kCompilation);  // -cc.mode=3, --compilation-config.mode=3
      result.push_back(word.substr(dot));
    } else {
      result.push_back(word);
    }
    // --flag=True, as Python writes it.
    const std::string& last = result.back();
    if (flags_end || !last.starts_with("--") || !(last.ends_with("=True") || last.ends_with("=False"))) continue;
    const CLI::Option* const flag = command.get_option_no_throw(last.substr(0, last.find('=')));
    if (flag == nullptr || flag->get_items_expected_max() > 0) continue;
    result.back() = last.substr(0, last.find('=')) + (last.ends_with("=True") ? "=true" : "=false");
  }
  return result;
}

}  // namespace lorikeet::launcher

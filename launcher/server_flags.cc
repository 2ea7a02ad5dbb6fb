#include "launcher/server_flags.h"

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "actors/wire/kv_budget.h"
#include "launcher/device.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::launcher {
namespace {

// vLLM's flags that name something which Lorikeet does not have, and what to do instead.
struct ForeignFlag {
  const char* name;
  const char* sentence;
};
constexpr std::array<ForeignFlag, 14> kForeignFlags = {{
    {"--pipeline-parallel-size", "the model is cut by tensor parallelism only; use --tensor-parallel-size"},
    {"--data-parallel-size", "start one server per replica"},
    {"--enforce-eager",
     "CUDA graphs take adapters as data and are never recaptured; there is no eager mode to ask for"},
    {"--swap-space", "sequences that are preempted are recomputed, never swapped"},
    {"--cpu-offload-gb", "weights stay on the device"},
    {"--trust-remote-code", "no code is ever loaded from a checkpoint"},
    {"--tokenizer", "the tokenizer is read from the checkpoint's directory"},
    {"--revision", "models are local directories; download the revision that you want"},
    {"--speculative-config", "there is no speculative decoding"},
    {"--fully-sharded-loras", "adapters are cut so that they add no communication; there is nothing to choose"},
    {"--lora-extra-vocab-size", "adapters that add tokens are refused"},
    {"--lora-dtype", "adapters are kept in the dtype of the activations"},
    {"--max-logprobs", "logprobs are bounded at 20 per token, as in OpenAI's interface"},
    {"--disable-log-requests", "requests are not logged"},
}};
constexpr std::array<const char*, 5> kHttpFlags = {"--host", "--port", "--api-key", "--ssl-keyfile", "--ssl-certfile"};

void add_foreign_flag(CLI::App& app, const char* name, const std::string& sentence) {
  app.add_option_function<std::vector<std::string>>(name,
                                                    [name, sentence](const std::vector<std::string>&) {
                                                      throw CLI::ValidationError(std::string(name) + ": " + sentence);
                                                    })
      ->expected(0, 1)
      ->group("");  // hidden from --help
}

Result<void> check_range(std::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) return fail("{} {}: give a value from {} to {}", flag, value, low, high);
  return {};
}

Result<void> check_numbers(const actors::ServerOptions& o) {
  struct Bound {
    std::string_view flag;
    int64_t value, low, high;
  };
  const Bound bounds[] = {
      {"--tensor-parallel-size", o.tensor_parallel_size, 1, 64},
      {"--max-model-len", o.max_model_len, 0, 1 << 24},
      {"--max-num-seqs", o.max_num_seqs, 1, 65536},
      {"--max-num-batched-tokens", o.max_num_batched_tokens, 1, 1 << 20},
      {"--max-num-queued-reqs", o.max_num_queued_reqs, 1, 1 << 20},
      {"--block-size", o.block_size, 1, 1024},
      {"--max-loras", o.max_loras, 1, 65536},
      {"--max-cpu-loras", o.max_cpu_loras, 1, 1 << 20},
      {"--max-lora-rank", o.max_lora_rank, 1, 4096},
      {"--threads", o.threads, 0, 1024},
      {"--heartbeat-ms", o.heartbeat_ms, 50, 60'000},
      {"--rank-timeout-ms", o.rank_timeout_ms, 100, 3'600'000},
  };
  for (const Bound& b : bounds) {
    if (auto ok = check_range(b.flag, b.value, b.low, b.high); !ok) return ok;
  }
  return {};
}

Result<void> check_quantization(const std::string& wanted, const model::ModelConfig& config) {
  if (wanted == "auto") return {};
  constexpr std::string_view names[] = {"none", "gptq", "gptq", "awq", "compressed-tensors"};
  const std::string_view found = names[static_cast<size_t>(config.quant.method)];
  if (wanted != found) return fail("--quantization {}: the checkpoint is {}", wanted, found);
  return {};
}

Result<void> read_lora_modules(const std::vector<std::string>& texts, actors::ServerOptions& options) {
  std::set<std::string> names;
  for (const std::string& text : texts) {
    auto module = parse_lora_module(text);
    if (!module) return tl::unexpected(module.error());
    if (!names.insert(module->first).second) return fail("--lora-modules: the name '{}' is given twice", module->first);
    if (module->first == options.served_model_name) {
      return fail("--lora-modules: '{}' is the name of the base model", module->first);
    }
    if (!std::filesystem::is_directory(module->second)) {
      return fail("--lora-modules {}: {} is not a directory", module->first, module->second);
    }
    options.lora_modules.push_back(*std::move(module));
  }
  return {};
}

}  // namespace

void add_server_flags(CLI::App& app, ServerFlags& f) {
  actors::ServerOptions& o = f.options;
  app.option_defaults()->always_capture_default();
  app.add_option("--model", o.model, "Directory of the checkpoint (config.json, *.safetensors, the tokenizer's files)")
      ->required();
  app.add_option("--served-model-name", o.served_model_name, "Name of the base model (default: the directory's name)");
  app.add_option("--lora-modules", f.lora_modules,
                 "Adapters: NAME=DIR ..., or {\"name\": NAME, \"path\": DIR}; several values, may be repeated")
      ->expected(1, CLI::detail::expected_max_vector_size);
  app.add_option("--tensor-parallel-size,--tp", o.tensor_parallel_size, "Ranks that the model is cut over");
  app.add_option("--device", f.device, "Where the ranks compute")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--zmq", o.zmq_address,
                 "ZeroMQ address for clients (tcp://HOST:PORT, port 0 picks one; or ipc://PATH)");
  app.add_option("--chat-template", o.chat_template,
                 "Name of a known chat template, or a file that is one (default: the checkpoint's own)");

  app.add_option("--dtype", o.dtype, "Activations on the GPU; on the CPU they are float32")
      ->check(CLI::IsMember({"auto", "half", "float16", "bfloat16"}));
  app.add_option("--quantization", f.quantization, "What the checkpoint must be")
      ->check(CLI::IsMember({"auto", "none", "gptq", "awq", "compressed-tensors"}));
  app.add_option("--load-format", o.load_format, "dummy fills the weights at random: no *.safetensors needed")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}));

  const std::string group = "Scheduling and memory";
  app.add_option("--max-model-len", o.max_model_len, "Positions of a sequence, prompt included (0: the checkpoint's)")
      ->group(group);
  app.add_option("--max-num-seqs", o.max_num_seqs, "Sequences in one step")->group(group);
  app.add_option("--max-num-batched-tokens", o.max_num_batched_tokens,
                 "Tokens in one step; longer prompts go in chunks")
      ->group(group);
  app.add_option("--max-num-queued-reqs", o.max_num_queued_reqs, "Requests that may wait; one more is refused")
      ->group(group);
  app.add_option("--block-size", o.block_size, "Positions in a block of the KV cache")->group(group);
  app.add_option("--kv-cache-memory-bytes", f.kv_cache_memory,
                 "KV cache of each rank in bytes, or with a suffix K, M, G (0: decided at start)")
      ->group(group);
  app.add_option("--kv-cache-dtype", o.kv_cache_dtype, "Element type of the KV cache on the GPU")
      ->check(CLI::IsMember({"auto", "fp16", "bf16", "fp8"}))
      ->group(group);
  app.add_option("--gpu-memory-utilization", f.gpu_memory_utilization, "Share of the GPU's memory to use")
      ->group(group);
  app.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", f.enable_prefix_caching,
               "Reuse the KV blocks of equal prefixes under the same adapter")
      ->group(group);
  app.add_option("--seed", o.seed, "Where the seeds of requests without one are drawn from (0: the system)")
      ->group(group);
  app.add_option("--threads", o.threads, "CPU threads of each rank (0: cores / ranks)")->group(group);

  const std::string lora = "Adapters";
  app.add_flag("--enable-lora", f.enable_lora, "Accepted as vLLM names it; adapters are always on")->group(lora);
  app.add_option("--max-loras", o.max_loras, "Adapter slots of each rank: distinct adapters in one step")->group(lora);
  app.add_option("--max-cpu-loras", o.max_cpu_loras, "Adapters kept in the head's memory")->group(lora);
  app.add_option("--max-cpu-lora-bytes", f.max_cpu_lora_memory, "Bytes for them; suffixes K, M, G")->group(lora);
  app.add_option("--max-lora-rank", o.max_lora_rank, "Adapters of a higher rank are refused")->group(lora);

  const std::string processes = "Processes";
  app.add_option("--heartbeat-ms", o.heartbeat_ms, "Heartbeat between the server's processes, milliseconds")
      ->group(processes);
  app.add_option("--rank-timeout-ms", o.rank_timeout_ms,
                 "A rank whose step takes longer is taken for hung, milliseconds")
      ->group(processes);
  app.add_option("--test-hooks", o.test_hooks, "For tests")->group("");

  for (const ForeignFlag& flag : kForeignFlags) add_foreign_flag(app, flag.name, flag.sentence);
  for (const char* flag : kHttpFlags) {
    add_foreign_flag(app, flag, "there is no HTTP server in this version; clients connect to --zmq");
  }
}

Result<actors::ServerOptions> resolve(const ServerFlags& flags) {
  actors::ServerOptions o = flags.options;
  auto config = model::read_model_config(o.model);
  if (!config) return tl::unexpected(config.error());
  if (o.served_model_name.empty()) {
    o.served_model_name = std::filesystem::weakly_canonical(o.model).filename().string();
  }
  if (auto ok = check_numbers(o); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_quantization(flags.quantization, *config); !ok) return tl::unexpected(ok.error());
  if (auto plan = model::ShardPlan::make(*config, o.tensor_parallel_size); !plan) return tl::unexpected(plan.error());
  if (auto length = actors::context_length(o, *config); !length) return tl::unexpected(length.error());
  if (o.load_format == "safetensors") o.load_format = "auto";

  auto kv_bytes = parse_bytes(flags.kv_cache_memory);
  if (!kv_bytes) return fail("--kv-cache-memory-bytes: {}", kv_bytes.error().message);
  o.kv_cache_memory_bytes = *kv_bytes;
  auto lora_bytes = parse_bytes(flags.max_cpu_lora_memory);
  if (!lora_bytes) return fail("--max-cpu-lora-bytes: {}", lora_bytes.error().message);
  o.max_cpu_lora_bytes = *lora_bytes;
  if (!(flags.gpu_memory_utilization > 0 && flags.gpu_memory_utilization <= 1)) {
    return fail("--gpu-memory-utilization {}: give a share above 0, at most 1", flags.gpu_memory_utilization);
  }
  o.gpu_memory_utilization = fmt::format("{}", flags.gpu_memory_utilization);
  o.enable_prefix_caching = flags.enable_prefix_caching;

  auto device = choose_device(flags.device);
  if (!device) return tl::unexpected(device.error());
  o.device = *device;
  if (auto ok = read_lora_modules(flags.lora_modules, o); !ok) return tl::unexpected(ok.error());
  return o;
}

Result<uint64_t> parse_bytes(const std::string& text) {
  size_t digits = 0;
  uint64_t value = 0;
  for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    value = value * 10 + static_cast<uint64_t>(text[digits] - '0');
    if (value > (1ULL << 50)) return fail("'{}' is too large", text);
  }
  const std::string suffix = text.substr(digits);
  const int shift = suffix.empty() ? 0 : suffix == "K" ? 10 : suffix == "M" ? 20 : suffix == "G" ? 30 : -1;
  if (digits == 0 || shift < 0) return fail("'{}' is not a number of bytes (such as 1073741824, 512M or 2G)", text);
  if (value > (1ULL << 50) >> shift) return fail("'{}' is too large", text);
  return value << shift;
}

Result<std::pair<std::string, std::string>> parse_lora_module(const std::string& text) {
  std::string name, path;
  if (!text.empty() && text.front() == '{') {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("name") || !json["name"].is_string() || !json.contains("path") ||
        !json["path"].is_string()) {
      return fail("--lora-modules {}: the JSON form is {{\"name\": NAME, \"path\": DIR}}", text);
    }
    name = json["name"].get<std::string>();
    path = json["path"].get<std::string>();
  } else {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return fail("--lora-modules {}: give NAME=DIR", text);
    name = text.substr(0, equals);
    path = text.substr(equals + 1);
  }
  if (name.empty() || path.empty()) return fail("--lora-modules {}: give NAME=DIR", text);
  return std::pair{name, path};
}

}  // namespace lorikeet::launcher
